"""The networks as the paper defines them, and the plain path, which is the oracle of the fast path."""
