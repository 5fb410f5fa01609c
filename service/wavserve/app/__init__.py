"""The composition root: the settings, and what is built from them: service, fleet of devices, hosted models."""
