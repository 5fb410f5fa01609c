"""Messages between a simulator's process and its parent: a line of JSON, then the bytes of arrays.

No pickle. Knows no simulator.
"""

from __future__ import annotations

import json
import math
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """A call or its answer. `facts` are values that JSON knows."""

    facts: Mapping[str, Any]
    arrays: Arrays = field(default_factory=dict)


def write(connection: socket.socket, message: Message) -> None:
    """Raises OSError when nobody reads, and its child TimeoutError by the connection's own limit."""
    arrays = {name: np.ascontiguousarray(array) for name, array in message.arrays.items()}
    shapes = [(name, array.dtype.str, array.shape) for name, array in arrays.items()]
    head = json.dumps({"facts": dict(message.facts), "arrays": shapes}).encode() + b"\n"
    connection.sendall(b"".join([head, *(array.tobytes() for array in arrays.values())]))


def read(stream: BinaryIO) -> Message | None:
    """The next message; None when the other side is gone. The arrays are read-only."""
    head = stream.readline()
    if not head.endswith(b"\n"):
        return None
    parts = json.loads(head)
    arrays = {}
    for name, dtype, shape in parts["arrays"]:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        data = stream.read(size)
        if len(data) < size:
            return None
        arrays[name] = np.frombuffer(data, dtype).reshape(shape)
    return Message(parts["facts"], arrays)
