"""The HTTP edge: routes, request bodies and answers."""
