"""A runner for each hosted model, from a call's inputs to its outputs; and how a process loads and hosts a runner."""
