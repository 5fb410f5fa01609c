"""The feature arena: the features of imagined futures stay in slots on the device, and handles travel."""
