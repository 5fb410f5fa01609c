"""The feature arena: features of imagined futures stay in slots on the device, and calls pass handles of the slots."""
