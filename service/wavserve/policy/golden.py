"""Compares the actions that a device makes with the golden plan of the bundle.

Knows plans and numbers, and nothing of when a device is checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wavserve.bundle.golden import Golden
from wavserve.core.normalise import action_range
from wavserve.core.spec import PolicySpec
from wavserve.core.types import Array, PlanRequest

TOLERANCES: Mapping[str, float] = {"float32": 1e-4, "bfloat16": 2e-2}
"""Largest difference in fractions of the action's range, by the models' numeric type."""
_EPSILON = 1e-6  # a constant dimension has the range 0
_ROUNDINGS = 4  # of float32: two commands and the two before them


@dataclass(frozen=True, slots=True)
class GoldenCheck:
    """A policy's golden plan, and how far a device may be from it."""

    spec: PolicySpec
    golden: Golden
    tolerance: float
    """in fractions of the action's range"""

    @property
    def request(self) -> PlanRequest:
        golden = self.golden
        return PlanRequest(
            images=golden.images,
            state=golden.state,
            instruction=golden.instruction,
            seed=golden.seed,
            options={"mode": "off"},
        )

    def difference(self, actions: Array) -> str | None:
        """How actions `[T, A]` differ most from the golden plan, in words; None: not more than they may."""
        expected, actual = self._compared(self.golden.actions), self._compared(actions)
        span = action_range(self.spec.action.vector.norm) + _EPSILON
        allowed = self.tolerance * span + _ROUNDINGS * np.spacing(np.abs(self.golden.actions))
        excess = np.abs(actual - expected) / allowed
        step, d = np.unravel_index(int(excess.argmax()), excess.shape)
        if excess[step, d] <= 1:
            return None
        vector = self.spec.action.vector
        share = abs(actual[step, d] - expected[step, d]) / span[d]
        what = "a change of " if int(d) in self._summed else ""
        return (
            f"golden plan: {vector.names[d]} at step {step}: expected {what}{expected[step, d]:.6g} {vector.units[d]}, "
            f"got {actual[step, d]:.6g} ({share:.1e} of its range, allowed {self.tolerance:g})"
        )

    @property
    def _summed(self) -> list[int]:
        """Dimensions whose commands are sums."""
        action = self.spec.action
        return [d for d in range(action.vector.dim) if action.kind == "delta" and d not in action.absolute_dims]

    def _compared(self, actions: Array) -> NDArray[np.float64]:
        """Commands `[T, A]`; where they are sums, each step's change, because a sum's error is that of all steps."""
        compared = actions.astype(np.float64)
        summed = self._summed
        before = self.golden.state[summed].astype(np.float64)
        compared[:, summed] = np.diff(compared[:, summed], axis=0, prepend=before[None])
        return compared
