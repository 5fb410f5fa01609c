"""Weights on disk: presets, the authors' checkpoints and their names, stand-ins for VAE and text encoder."""
