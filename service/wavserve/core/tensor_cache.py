"""Tensors that travel once: later calls name them by a key, and the other side still has them.

A plan's frame memory and an iteration's Gaussians go with every slice of samples: over a wire, megabytes a plan. Used
by the backend that has a wire (`Sender`) and by the host at its other end (`Receiver`); nothing else knows of it. Knows
numpy only.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wavserve.core.errors import TensorMiss
from wavserve.core.types import Tensors

KEY_BYTES = 16
NUM_SENT = 128
NUM_HELD = 256
"""Rows a host keeps. More than a sender relies on, for several gateways may share a host."""


def key_name(name: str) -> str:
    """The input that carries the keys `[G, 16]` of input `name`."""
    return f"{name}_key"


class Sender:
    """Remembers which rows the host has seen. A wrong guess costs a TensorMiss: `forget`, and send again."""

    def __init__(self, num_sent: int = NUM_SENT) -> None:
        self._sent: OrderedDict[bytes, None] = OrderedDict()
        self._num_sent = num_sent

    def fold(self, inputs: Tensors, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        """The call with keys added, and without those of the named tensors `[G, ...]` whose every row was sent."""
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
    """Keeps the rows seen last and puts them back where a call only names them."""

    def __init__(self, num_held: int = NUM_HELD) -> None:
        self._held: OrderedDict[bytes, NDArray[Any]] = OrderedDict()
        self._num_held = num_held

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
                self._held[key] = row.copy()  # the call's own memory is gone after the call
        missing = [key.hex() for key in keys if key not in self._held]
        if missing:
            raise TensorMiss(f"{name}: {len(missing)} of {len(keys)} rows are not held here")
        for key in keys:
            self._held.move_to_end(key)
        whole = np.stack([self._held[key] for key in keys]) if rows is None else rows
        while len(self._held) > self._num_held:
            self._held.popitem(last=False)
        return whole


def _key(row: NDArray[Any]) -> bytes:
    """Of content, dtype and shape: equal rows of different plans are one."""
    about = f"{row.dtype}{row.shape}".encode()
    return hashlib.blake2b(np.ascontiguousarray(row).data, digest_size=KEY_BYTES, person=about[-16:]).digest()
