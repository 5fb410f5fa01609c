"""The same output with a fraction of the work: shared projections, compiled blocks, CUDA graphs."""
