"""The algorithm (paper section 4.3), what it asks of the models, and what it will cost."""
