"""What runs a model call: this process, a Triton server, or a fake for tests."""
