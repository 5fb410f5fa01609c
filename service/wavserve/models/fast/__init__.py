"""Fast paths: equal output, fewer operations. They use cached keys and values, compiled blocks and CUDA graphs."""
