"""Makes demonstrations in the simulator and trains policies on them. Knows nothing that serves."""
