"""The rules of the feature arena: who may use which slot, and until when. Numpy only; the bytes live elsewhere.

The video runner allocates; the value and action runners read and release. Every cell of the book has one writer, so the
same book works over shared memory without locks: the allocator writes generations and leases, each reader its own pins
and releases. A handle is `(slot, generation)`: the slot's next allocation raises its generation, old handles go stale.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wavserve.errors import ArenaFull

Handles = NDArray[np.int64]


class Party(IntEnum):
    """Who touches slots; each has a row of cells of its own."""

    VIDEO = 0
    VALUE = 1
    ACTION = 2


class ArenaBook:
    """Allocation, pins, leases and releases of `num_slots` slots.

    `generation[s]` counts the slot's allocations, `written[s]` is the generation whose features are complete,
    `released[p, s]` the last generation party `p` released, `pinned[p, s]` the generation it is using (0: none).
    """

    def __init__(self, num_slots: int, lease_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        if num_slots < 1:
            raise ValueError(f"num_slots: expected at least 1, got {num_slots}")
        self.num_slots = num_slots
        self._lease_s = lease_s
        self._clock = clock
        self._generation = np.zeros(num_slots, np.int64)
        self._written = np.zeros(num_slots, np.int64)
        self._lease_until = np.zeros(num_slots, np.float64)
        self._released = np.zeros((len(Party), num_slots), np.int64)
        self._pinned = np.zeros((len(Party), num_slots), np.int64)

    @property
    def used(self) -> int:
        """Slots that are allocated, leased and not released."""
        return self.num_slots - int(self._free().sum())

    def allocate(self, count: int) -> Handles:
        """All `count` slots `[count, 2]`, pinned by the writer, neighbours where possible; or ArenaFull and none."""
        free = np.flatnonzero(self._free())
        if len(free) < count:
            raise ArenaFull(f"arena: {count} slots wanted, {len(free)} of {self.num_slots} are free")
        slots = _run(free, count)
        self._generation[slots] += 1
        self._pinned[Party.VIDEO, slots] = self._generation[slots]
        self._lease_until[slots] = self._clock() + self._lease_s
        return np.stack([slots, self._generation[slots]], axis=1)

    def publish(self, handles: Handles) -> None:
        """The writer is done: the features may be read, and the lease starts anew."""
        slots, generations = handles.T
        self._written[slots] = generations
        self._lease_until[slots] = self._clock() + self._lease_s
        self._pinned[Party.VIDEO, slots] = 0

    def abandon(self, handles: Handles) -> None:
        """The writer stopped without finishing; only it may say so, since nobody else knows when it last wrote."""
        self.release(handles, Party.VIDEO)
        self._pinned[Party.VIDEO, handles[:, 0]] = 0

    def current(self, handles: Handles) -> bool:
        """Whether every handle `[..., 2]` still names complete features."""
        slots, generations = handles.reshape(-1, 2).T
        if ((slots < 0) | (slots >= self.num_slots)).any():
            return False
        gone = (self._released[:, slots] == generations).any(axis=0)
        return bool(((self._generation[slots] == generations) & (self._written[slots] == generations) & ~gone).all())

    @contextmanager
    def pin(self, handles: Handles, party: Party) -> Iterator[None]:
        """Keeps slots `[..., 2]` from being given away while `party` reads them, even past their lease."""
        slots, generations = handles.reshape(-1, 2).T
        self._pinned[party, slots] = generations
        try:
            yield
        finally:
            self._pinned[party, slots] = 0

    def release(self, handles: Handles, party: Party) -> None:
        """`party` needs the slots `[..., 2]` no more; a stale handle releases nothing."""
        slots, generations = handles.reshape(-1, 2).T
        mine = (slots >= 0) & (slots < self.num_slots)
        self._released[party, slots[mine]] = generations[mine]

    def _free(self) -> NDArray[np.bool_]:
        unused = self._generation == 0
        released = (self._released == self._generation).any(axis=0)
        expired = self._lease_until < self._clock()
        free: NDArray[Any] = (unused | released | expired) & (self._pinned == 0).all(axis=0)
        return free


def _run(free: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """`count` of the free slots, consecutive where there is such a run: a run is read without a copy."""
    if count == 0:
        return free[:0]
    starts = np.flatnonzero(free[count - 1 :] - free[: len(free) - count + 1] == count - 1)
    return free[starts[0] : starts[0] + count] if len(starts) else free[:count]
