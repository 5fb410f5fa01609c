"""Processes, logs and metrics. Knows nothing of policies or models."""
