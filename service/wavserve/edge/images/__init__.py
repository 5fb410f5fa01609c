"""Camera images: raw, JPEG and PNG to the pixels that were sent, or a refusal."""
