"""Where the features of imagined futures stay: slots on the device, handles outside."""
