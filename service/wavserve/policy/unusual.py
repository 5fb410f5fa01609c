"""Warns of states that are far outside the statistics of the policy's training. Their plans are made all the same.

Knows numbers and names, and nothing of plans.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from wavserve.core.normalise import usual_range
from wavserve.core.spec import VectorSpec
from wavserve.core.types import Array

MAX_NAMED = 3
"""Dimensions that a warning names; it counts the others."""


class UsualStates:
    """The states that resemble those of the training. `on_unusual` receives the name of every other dimension."""

    def __init__(self, vector: VectorSpec, on_unusual: Callable[[str], None] = lambda name: None) -> None:
        self._vector = vector
        self._lowest, self._highest = usual_range(vector.norm)
        self._on_unusual = on_unusual

    def warnings(self, state: Array) -> tuple[str, ...]:
        """One warning for people when dimensions of the state `[S]` are far outside their statistics, else none."""
        dims = np.flatnonzero((state < self._lowest) | (state > self._highest)).tolist()
        for d in dims:
            self._on_unusual(self._vector.names[d])
        if not dims:
            return ()
        named = ", ".join(self._described(state, d) for d in dims[:MAX_NAMED])
        more = f", and {len(dims) - MAX_NAMED} more" if len(dims) > MAX_NAMED else ""
        return (f"state far outside what the policy was trained with: {named}{more}",)

    def _described(self, state: Array, d: int) -> str:
        usual = f"{self._lowest[d]:.4g} to {self._highest[d]:.4g}"
        return f"{self._vector.names[d]} is {state[d]:.4g} {self._vector.units[d]} (usual: {usual})"
