"""The shared parts of the runners: their protocol, the rows of a call, and safe reads of arena slots.

A call holds G groups of different plans. A group that cannot be served gets an error status. The other groups are
served.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wavserve.core.errors import Cancelled
from wavserve.core.types import Tensors
from wavserve.core.verbs import GroupStatus
from wavserve.models.arena.arena import Arena, ArenaFinder
from wavserve.models.arena.book import ArenaRole

Compute = Callable[[Arena, Tensors, NDArray[np.int64], NDArray[np.intp]], None]
"""A function of the arena, the rows of the groups to serve, their slots `[(G N)]` and their indices in the call."""

CancelCheck = Callable[[], bool]
"""Whether the call was cancelled. It is called at each flow step, so it must be fast."""


def not_cancelled() -> bool:
    return False


class Runner(Protocol):
    """One model: named tensors in and out, each with a leading group axis G; see `verbs.VERBS`."""

    def run(self, verb: str, inputs: Tensors, cancelled: CancelCheck = not_cancelled) -> Tensors:
        """Runs one call. Raises Cancelled soon after `cancelled` turns true, with all slots of the call freed."""
        ...


def stop_if(cancelled: CancelCheck) -> None:
    """Raises Cancelled when the call was cancelled."""
    if cancelled():
        raise Cancelled("the call was cancelled")


def rows_of(inputs: Tensors, groups: NDArray[np.intp]) -> Tensors:
    """The inputs of these groups only."""
    return {name: tensor[groups] for name, tensor in inputs.items()}


def on_slots(arenas: ArenaFinder, role: ArenaRole, inputs: Tensors, compute: Compute) -> NDArray[np.int32]:
    """Runs `compute` on the groups whose `handles [G, N, 2]` are current. Returns each group's status `[G]`.

    The slots are pinned during the call. Their generations are checked again after it: a group that may have read
    overwritten features gets STALE_HANDLE.
    """
    handles = inputs["handles"]
    status = np.full(len(handles), GroupStatus.STALE_HANDLE, np.int32)
    if (arena := arenas.of(handles)) is None:
        return status
    with arena.book.pin(handles, role):
        live = np.flatnonzero([arena.book.current(group) for group in handles])
        if len(live):
            compute(arena, rows_of(inputs, live), handles[live].reshape(-1, 2)[:, 0], live)
            arena.synchronize()
        status[[g for g in live if arena.book.current(handles[g])]] = GroupStatus.OK
    return status


def release(arenas: ArenaFinder, role: ArenaRole, handles: NDArray[np.int64]) -> None:
    """Releases slots `[..., 2]`. Slots of an arena that no longer exists need no release."""
    if (arena := arenas.of(handles)) is not None:
        arena.book.release(handles, role)
