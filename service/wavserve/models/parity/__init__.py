"""Parity: our models against recorded outputs of the released code, which ran with random weights."""
