"""Converts between the messages of `wavserve.v1` (protobuf) and our frozen data, in both directions.

The edge decides what a request means and whether it is allowed. This folder refuses only what it cannot convert:
unknown fields (ignoring one would be a guess), lists that are too long, and values that protobuf cannot carry.
"""

MAX_IMAGES = 16
"""More images than any policy has cameras. A longer list is refused before it is converted."""
MAX_STATE_NUMBERS = 4096
"""More numbers than any state has. A longer list is refused before it is converted."""
MAX_MILLISECONDS = 2**32 - 1
"""The longest deadline that the contract can carry."""
