"""The network edges: HTTP and gRPC over one frontend. Neither edge holds logic."""
