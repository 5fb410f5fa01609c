"""The network edges: HTTP and gRPC over one door. Neither holds logic; statuses stand in `status.py` alone."""
