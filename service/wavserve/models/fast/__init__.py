"""The same output for a fraction of the work: cached keys and values, compiled blocks, CUDA graphs."""
