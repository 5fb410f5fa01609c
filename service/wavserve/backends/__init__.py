"""Who runs a model call: this process, a Triton, or a fake for tests."""
