"""The HTTP edge: routes, bodies in, answers out."""
