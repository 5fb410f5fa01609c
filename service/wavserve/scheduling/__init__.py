"""Who is served when on one device: the batcher, the schedule and the cost model."""
