"""Parity: our models against recorded outputs of the released ones."""
