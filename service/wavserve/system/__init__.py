"""The operating system's side: processes, logs and metrics."""
