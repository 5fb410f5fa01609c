"""One runner a hosted model: calls in, the network, outputs; and how a process loads and hosts it."""
