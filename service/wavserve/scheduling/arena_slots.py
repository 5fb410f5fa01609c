"""The arena slots that plans of this process hold, by the outcomes of their calls, and the groups that wait for some.

Knows handles and the verb table, and nothing of the arena itself.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from wavserve.core.errors import ArenaFull, StaleHandle, WavserveError
from wavserve.core.types import Tensors
from wavserve.scheduling.groups import SampleGroup

log = logging.getLogger(__name__)

TOLD_AFTER_S = 5.0
"""The log tells of a longer wait for slots that no plan of this process holds."""


class HeldSlots:
    """Slots that were allocated and not freed yet. `arena_full`: whether the arena refused the last allocation."""

    def __init__(self) -> None:
        self.arena_full = False
        self._held: set[tuple[int, int]] = set()  # (slot, generation)

    def __len__(self) -> int:
        return len(self._held)

    def note(self, group: SampleGroup, answer: Tensors | WavserveError) -> None:
        """Adds the slots that an answer names, and drops those that the call left free."""
        if group.verb_info.allocates and not isinstance(answer, WavserveError):
            self._held |= _pairs(answer["handles"])
        if "handles" in group.tensors and _freed(group, answer):
            self._held -= _pairs(group.tensors["handles"])
            self.arena_full = False


class ArenaWaits:
    """How long groups have waited since the arena refused them first. `max_wait_s`: see `BatcherConfig`.

    Plans of other processes hold slots too. Slots of a process that died are free when their lease ends, and those that
    a model has pinned when it works again. Nothing tells of either.
    """

    def __init__(self, max_wait_s: float) -> None:
        self._max_wait_s = max_wait_s
        self._waited_s: dict[SampleGroup, float] = {}
        self._is_told = False

    def refused(self, group: SampleGroup) -> None:
        """The arena had too few free slots for a group, which waits until it is answered."""
        if group not in self._waited_s and not group.future.done():
            self._waited_s[group] = 0.0
            group.future.add_done_callback(lambda _: self._end(group))

    def overdue(self, seconds: float, are_ours: bool) -> Sequence[tuple[SampleGroup, ArenaFull]]:
        """The groups that have waited too long after another `seconds`, each with its error.

        `are_ours`: whether plans of this process hold slots, and will free them.
        """
        for group in self._waited_s:
            self._waited_s[group] += seconds
        longest_s = max(self._waited_s.values(), default=0.0)
        if longest_s > (self._max_wait_s if are_ours else TOLD_AFTER_S) and not self._is_told:
            self._is_told = True
            log.warning("the feature arena has been full for %.0f s: plans wait for its slots", longest_s)
        error = ArenaFull(f"no slots of the feature arena within {self._max_wait_s:.0f} s")
        waits = self._waited_s.items()
        return [(group, error) for group, s in waits if s > self._max_wait_s and not group.future.done()]

    def _end(self, group: SampleGroup) -> None:
        del self._waited_s[group]
        self._is_told = self._is_told and bool(self._waited_s)


def _freed(group: SampleGroup, answer: Tensors | WavserveError) -> bool:
    """Whether the slots that a group named are free now, or were free before."""
    if not group.verb_info.computes or isinstance(answer, StaleHandle):
        return True  # a release that fails has lost the arena's owner, and the slots with it
    return group.verb_info.frees_slots(group.params) and isinstance(answer, Mapping)


def _pairs(handles: NDArray[np.int64]) -> set[tuple[int, int]]:
    return {(int(slot), int(generation)) for slot, generation in handles}
