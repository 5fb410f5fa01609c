"""The rules of the feature arena: which process may use which slot, and until when.

This module stores no features and needs numpy only. The video runner allocates; the value and action runners read and
release. Every cell of the book has one writer, so the same book works over shared memory without locks: the allocator
writes generations and leases, and each reader writes its own row of pins and releases. A handle is `(slot,
generation)`. The slot's next allocation raises its generation, and old handles become stale. The upper half of a
generation is the slab's epoch: handles of an earlier slab are stale in a later one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wavserve.core.errors import ArenaFull, BackendError
from wavserve.core.types import Handles
from wavserve.system.processes import Process

EPOCH_BITS = 32
ROWS_PER_ROLE = 4
"""Rows per role: a reloaded model may run beside its predecessor for a while, and each process has its own row."""


class ArenaRole(IntEnum):
    """Which model uses a slot."""

    VIDEO = 0
    VALUE = 1
    ACTION = 2


@dataclass(frozen=True, slots=True)
class Cells:
    """The book's numbers for `S` slots and `R` rows of processes, as views of one buffer."""

    generation: NDArray[np.int64]
    """`[S]`: the slot's current generation; every allocation raises it"""
    written: NDArray[np.int64]
    """`[S]`: the generation whose features are complete"""
    lease_until: NDArray[np.float64]
    """`[S]`: end of the lease, in seconds of the monotonic clock"""
    owner: NDArray[np.int64]
    """`[R, 2]`: the process that the row belongs to"""
    released: NDArray[np.int64]
    """`[R, S]`: the last generation that the row's process released"""
    pinned: NDArray[np.int64]
    """`[R, S]`: the generation that the row's process is using; 0: none"""

    @staticmethod
    def nbytes(num_slots: int) -> int:
        rows = len(ArenaRole) * ROWS_PER_ROLE
        return 8 * (3 * num_slots + rows * (2 + 2 * num_slots))

    @classmethod
    def over(cls, buffer: Any, num_slots: int, offset: int = 0) -> Cells:
        """Views of a buffer of at least `nbytes(num_slots)` zeros from `offset` on."""
        rows = len(ArenaRole) * ROWS_PER_ROLE

        def take(dtype: type, *shape: int) -> NDArray[Any]:
            nonlocal offset
            view: NDArray[Any] = np.ndarray(shape, dtype, buffer, offset)
            offset += view.nbytes
            return view

        slot_cells = (take(np.int64, num_slots), take(np.int64, num_slots), take(np.float64, num_slots))
        return cls(*slot_cells, take(np.int64, rows, 2), *(take(np.int64, rows, num_slots) for _ in range(2)))


class ArenaBook:
    """Allocation, pins, leases and releases of `num_slots` slots.

    Without `cells` the book is private to this process. With shared `cells`, `epoch` distinguishes this slab from
    earlier ones.
    """

    def __init__(
        self,
        num_slots: int,
        lease_s: float,
        clock: Callable[[], float] = time.monotonic,
        cells: Cells | None = None,
        epoch: int = 0,
    ) -> None:
        if num_slots < 1:
            raise ValueError(f"num_slots: expected at least 1, got {num_slots}")
        self.num_slots = num_slots
        self.epoch = epoch
        self._lease_s = lease_s
        self._clock = clock
        self._cells = cells or Cells.over(bytearray(Cells.nbytes(num_slots)), num_slots)
        self._rows: dict[ArenaRole, int] = {}
        self._lock = threading.Lock()  # for the threads of this process; other processes write only their own cells

    @property
    def used(self) -> int:
        """Slots that are allocated, leased and not released."""
        return self.num_slots - int(self._free().sum())

    def allocate(self, count: int) -> Handles:
        """Allocates `count` slots, consecutive if possible, and pins them for the writer. Returns handles `[count, 2]`.

        Raises ArenaFull when fewer slots are free, and then allocates none.
        """
        with self._lock:
            return self._allocate(count)

    def _allocate(self, count: int) -> Handles:
        cells, row = self._cells, self._row(ArenaRole.VIDEO)
        free = np.flatnonzero(self._free())
        if len(free) < count:
            raise ArenaFull(f"arena: {count} slots wanted, {len(free)} of {self.num_slots} are free")
        slots = _choose(free, count)
        cells.generation[slots] = np.maximum(cells.generation[slots], self.epoch << EPOCH_BITS) + 1
        if self._pinned()[slots].any():  # a reader pinned since the check above: it will see the new generation
            cells.lease_until[slots] = -np.inf
            raise ArenaFull("arena: a reader pinned a slot whose lease had expired; retry")
        cells.pinned[row, slots] = cells.generation[slots]
        cells.lease_until[slots] = self._clock() + self._lease_s
        return np.stack([slots, cells.generation[slots]], axis=1)

    def publish(self, handles: Handles) -> None:
        """Marks the features complete, so that they may be read, and renews the lease."""
        slots, generations = handles.T
        self._cells.written[slots] = generations
        self._cells.lease_until[slots] = self._clock() + self._lease_s
        self._cells.pinned[self._row(ArenaRole.VIDEO), slots] = 0

    def abandon(self, handles: Handles) -> None:
        """Frees the slots of a writer that stopped early. Only the writer may call it.

        Only the writer knows when it has stopped.
        """
        self.release(handles, ArenaRole.VIDEO)
        self._cells.pinned[self._row(ArenaRole.VIDEO), handles[:, 0]] = 0

    def current(self, handles: Handles) -> bool:
        """Whether every handle `[..., 2]` still names complete features."""
        slots, generations = handles.reshape(-1, 2).T
        if not self._exist(slots).all():
            return False
        cells = self._cells
        released = (cells.released[:, slots] == generations).any(axis=0)
        complete = (cells.generation[slots] == generations) & (cells.written[slots] == generations)
        return bool((complete & ~released).all())

    @contextmanager
    def pin(self, handles: Handles, role: ArenaRole) -> Iterator[None]:
        """Protects slots `[..., 2]` from reallocation while `role` reads them, even after their lease has expired.

        A slot may have been reallocated just before: check `current` inside the block.
        """
        slots, generations = handles.reshape(-1, 2).T
        exist, row = self._exist(slots), self._row(role)
        self._cells.pinned[row, slots[exist]] = generations[exist]
        try:
            yield
        finally:
            self._cells.pinned[row, slots[exist]] = 0

    def release(self, handles: Handles, role: ArenaRole) -> None:
        """Records that `role` no longer needs the slots `[..., 2]`. A stale handle releases nothing."""
        slots, generations = handles.reshape(-1, 2).T
        slots, generations = slots[self._exist(slots)], generations[self._exist(slots)]
        fresh = self._cells.generation[slots] == generations
        self._cells.released[self._row(role), slots[fresh]] = generations[fresh]

    def _exist(self, slots: NDArray[np.int64]) -> NDArray[np.bool_]:
        inside: NDArray[np.bool_] = (slots >= 0) & (slots < self.num_slots)
        return inside

    def _free(self) -> NDArray[np.bool_]:
        cells = self._cells
        unused = cells.generation == 0
        released = (cells.released == cells.generation).any(axis=0)
        expired = cells.lease_until < self._clock()
        free: NDArray[Any] = (unused | released | expired) & ~self._pinned()
        return free

    def _pinned(self) -> NDArray[np.bool_]:
        """Slots that a running process uses. The pins of an exited process do not count."""
        cells = self._cells
        rows = [r for r in np.flatnonzero(cells.pinned.any(axis=1)) if Process(*cells.owner[r].tolist()).alive]
        return np.asarray(cells.pinned[rows].any(axis=0), np.bool_)

    def _row(self, role: ArenaRole) -> int:
        """This process's row for `role`: one that was never used, or the row of an exited process."""
        if role not in self._rows:
            owner, me = self._cells.owner, Process.me()
            for row in range(role * ROWS_PER_ROLE, (role + 1) * ROWS_PER_ROLE):
                if owner[row, 0] == 0 or not Process(*owner[row].tolist()).alive:
                    self._cells.pinned[row] = 0  # the exited process's releases stay valid
                    owner[row] = me
                    self._rows[role] = row
                    break
            else:
                raise BackendError(f"arena: expected at most {ROWS_PER_ROLE} {role.name} processes alive, got one more")
        return self._rows[role]


def _choose(free: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """`count` of the free slots, consecutive where possible: consecutive slots are read without a copy."""
    if count == 0:
        return free[:0]
    starts = np.flatnonzero(free[count - 1 :] - free[: len(free) - count + 1] == count - 1)
    return free[starts[0] : starts[0] + count] if len(starts) else free[:count]
