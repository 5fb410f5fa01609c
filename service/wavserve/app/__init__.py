"""The composition root: settings, and the service, the fleet of devices and the hosted models they build."""
