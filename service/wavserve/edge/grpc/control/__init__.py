"""`Control` and `Watch`: a robot's stream from its handshake to its end, and what onlookers see of it."""
