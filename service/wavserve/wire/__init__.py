"""Between the messages of `wavserve.v1` (protobuf) and our own frozen data, both ways.

Used by the gRPC edge and the robot client. Spelling only: what a request means, and whether it is allowed, the edge
judges. The one judgement made here is that a field we do not know is refused, since ignoring it would be a guess.
"""

MAX_IMAGES = 16
"""More than any policy has cameras; a longer list is refused before it is read."""
MAX_STATE_NUMBERS = 4096
"""likewise, of a state"""
MAX_MILLISECONDS = 2**32 - 1
"""the longest deadline the contract has place for"""
