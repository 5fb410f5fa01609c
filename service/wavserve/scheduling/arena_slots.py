"""The arena slots that plans of this process hold, by the outcomes of their calls.

Knows handles and the verb table, and nothing of the arena itself.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from wavserve.core.errors import StaleHandle, WavserveError
from wavserve.core.types import Tensors
from wavserve.scheduling.groups import SampleGroup


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


def _freed(group: SampleGroup, answer: Tensors | WavserveError) -> bool:
    """Whether the slots that a group named are free now, or were free before."""
    if not group.verb_info.computes or isinstance(answer, StaleHandle):
        return True  # a release that fails has lost the arena's owner, and the slots with it
    return group.verb_info.frees_slots(group.params) and isinstance(answer, Mapping)


def _pairs(handles: NDArray[np.int64]) -> set[tuple[int, int]]:
    return {(int(slot), int(generation)) for slot, generation in handles}
