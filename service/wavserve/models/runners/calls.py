"""What the runners share: the shape of a model's entry, rows of a call, and reading arena slots safely.

Called by the runners only. A call holds G groups of different plans; one that cannot be served gets a status of its own
and the others go on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wavserve.core.errors import Cancelled
from wavserve.core.types import Tensors
from wavserve.core.verbs import Status
from wavserve.models.arena.arena import Arena, Arenas
from wavserve.models.arena.book import ArenaRole

Compute = Callable[[Arena, Tensors, NDArray[np.int64], NDArray[np.intp]], None]
"""Given the arena, the rows of the groups that are served, their slots `[(G N)]` and their indices in the call."""

CancelCheck = Callable[[], bool]
"""Whether nobody waits for the call any more; asked at each flow step, so it must be quick."""


def never() -> bool:
    return False


class Runner(Protocol):
    """One model: named tensors in and out, each with a leading group axis G; see `verbs.VERBS`."""

    def run(self, verb: str, inputs: Tensors, cancelled: CancelCheck = never) -> Tensors:
        """Raises Cancelled soon after `cancelled` turns true; what the call had allocated is free again then."""
        ...


def stop_if(cancelled: CancelCheck) -> None:
    """Raises Cancelled."""
    if cancelled():
        raise Cancelled("nobody waits for this call any more")


def rows_of(inputs: Tensors, groups: NDArray[np.intp]) -> Tensors:
    """The call as if it held these groups only."""
    return {name: tensor[groups] for name, tensor in inputs.items()}


def on_slots(arenas: Arenas, role: ArenaRole, inputs: Tensors, compute: Compute) -> NDArray[np.int32]:
    """Runs `compute` on the groups whose `handles [G, N, 2]` are current, and tells each group's status `[G]`.

    Slots are pinned meanwhile, and generations looked at again afterwards: what was read is either whole or refused.
    """
    handles = inputs["handles"]
    status = np.full(len(handles), Status.STALE_HANDLE, np.int32)
    if (arena := arenas.of(handles)) is None:
        return status
    with arena.book.pin(handles, role):
        live = np.flatnonzero([arena.book.current(group) for group in handles])
        if len(live):
            compute(arena, rows_of(inputs, live), handles[live].reshape(-1, 2)[:, 0], live)
            arena.settle()
        status[[g for g in live if arena.book.current(handles[g])]] = Status.OK
    return status


def release(arenas: Arenas, role: ArenaRole, handles: NDArray[np.int64]) -> None:
    """Gives slots `[..., 2]` back; those of an arena that is gone need no giving back."""
    if (arena := arenas.of(handles)) is not None:
        arena.book.release(handles, role)
