"""The three diffusion transformers and the encoder: networks, their fast path, and the runners that host them."""
