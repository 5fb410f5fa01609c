"""Weights on disk: presets, the authors' checkpoints and tensor names, stand-ins for the VAE and text encoder."""
