"""Models in a Triton server: the client, health checks and repair, and a server as our child process."""
