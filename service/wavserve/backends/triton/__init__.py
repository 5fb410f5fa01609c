"""Models in a Triton server: the client, its health and repair, and a server of our own."""
