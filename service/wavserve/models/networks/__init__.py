"""The networks as the paper defines them, and the plain path that is the oracle of the fast one."""
