"""Sends a tensor over a wire once. Later calls send its key, and the receiver puts the tensor back.

Every slice of samples needs the plan's frame memory and the iteration's Gaussians. Sending them with each slice would
cost megabytes per plan. The `Sender` runs in the gateway's backend, the `Receiver` in the model's host. Knows numpy
only.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wavserve.core.errors import TensorMiss
from wavserve.core.types import Tensors
from wavserve.system.lookups import Lookups

KEY_BYTES = 16
NUM_SENT = 128
"""Rows that a sender assumes the host still holds."""
NUM_HELD = 256
"""Rows that a host holds. They are more than NUM_SENT, because several gateways may share a host."""


def key_name(name: str) -> str:
    """The name of the input that carries the keys `[G, 16]` of input `name`."""
    return f"{name}_key"


class Sender:
    """Remembers which rows the host has received. After a TensorMiss, call `forget` and send the call again."""

    def __init__(self, num_sent: int = NUM_SENT) -> None:
        self._sent: OrderedDict[bytes, None] = OrderedDict()
        self._num_sent = num_sent

    def fold(self, inputs: Tensors, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        """The call with keys added. A named tensor `[G, ...]` is left out when all its rows were sent before."""
        folded = dict(inputs)
        for name in names:
            keys = [_key(row) for row in inputs[name]]
            folded[key_name(name)] = np.stack([np.frombuffer(key, np.uint8) for key in keys])
            if all(key in self._sent for key in keys):
                del folded[name]
            for key in keys:
                self._sent[key] = None
                self._sent.move_to_end(key)
        while len(self._sent) > self._num_sent:
            self._sent.popitem(last=False)
        return folded

    def forget(self) -> None:
        self._sent.clear()


class Receiver:
    """Holds the rows used last and puts them back into calls that send only their keys."""

    def __init__(self, num_held: int = NUM_HELD) -> None:
        self._held: OrderedDict[bytes, NDArray[Any]] = OrderedDict()
        self._num_held = num_held
        self.lookups = Lookups()
        """of rows of which a call had the keys only"""

    def unfold(self, inputs: Tensors, names: tuple[str, ...]) -> Tensors:
        """The call as it was before `fold`. Raises TensorMiss when a row is not held."""
        whole = dict(inputs)
        for name in names:
            if key_name(name) in whole:
                keys = [key.tobytes() for key in whole.pop(key_name(name))]
                whole[name] = self._restored(name, keys, whole.get(name))
        return whole

    def _restored(self, name: str, keys: list[bytes], rows: NDArray[Any] | None) -> NDArray[Any]:
        if rows is not None:
            for key, row in zip(keys, rows, strict=True):
                self._held[key] = row.copy()  # the call's own buffer is not valid after the call
        missing = [key.hex() for key in keys if key not in self._held]
        if rows is None:
            self.lookups.hit += len(keys) - len(missing)
            self.lookups.miss += len(missing)
        if missing:
            raise TensorMiss(f"{name}: {len(missing)} of {len(keys)} rows are not held by this host")
        for key in keys:
            self._held.move_to_end(key)
        whole = np.stack([self._held[key] for key in keys]) if rows is None else rows
        while len(self._held) > self._num_held:
            self._held.popitem(last=False)
        return whole


def _key(row: NDArray[Any]) -> bytes:
    """A hash of content, dtype and shape, so equal rows of different plans share a key."""
    layout = f"{row.dtype}{row.shape}".encode()
    return hashlib.blake2b(np.ascontiguousarray(row).data, digest_size=KEY_BYTES, person=layout[-16:]).digest()
