"""The live page: which robots are connected, their last plans, and how the devices are. Server-rendered."""
