"""A policy bundle on disk: what it declares, its checks and its files."""
