"""Clients of other servers: their requests in our types, a session of their own, and no chunk that they misread."""
