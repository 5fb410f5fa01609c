"""Our models against recordings of the released ones."""
