"""A simulated robot as an `Environment`: LIBERO in a process of its own."""
