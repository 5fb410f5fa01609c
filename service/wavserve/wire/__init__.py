"""Converts between the messages of `wavserve.v1` (protobuf) and our frozen data, in both directions.

The edge decides what a request means and whether it is allowed. This folder refuses only what it cannot convert:
unknown fields (ignoring one would be a guess), lists that are too long, and values that protobuf cannot carry.
"""

MAX_IMAGES = 16
"""More images than any policy has cameras. A longer list is refused before it is converted."""
MAX_STATE_NUMBERS = 4096
"""More numbers than any state has. A longer list is refused before it is converted."""
MAX_DEPTH = 32
"""Lists and objects inside each other. The contract needs four."""
MAX_ELEMENTS = 10_000
"""List items and object members of a whole JSON request, fields of a whole protobuf request."""
MAX_TEXT_BYTES = 64 * 1024
"""The longest text. Only an image's data may be longer."""
MAX_OUTLINE_BYTES = 1024 * 1024
"""Everything of a request except the images' data."""
MAX_MILLISECONDS = 2**32 - 1
"""The longest deadline that the contract can carry."""
