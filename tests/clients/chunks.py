"""Chunks for tests of the action player and of the robot clients."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.edge.fakes import example_receipt, example_spec
from wavserve.core.messages import ActionChunk
from wavserve.core.types import Array, PlanRequest

DT_S = 1 / 30
_RECEIPT = example_receipt(
    example_spec(), PlanRequest(instruction="", images={}, state=np.zeros(8, np.float32), seed=1)
)


def chunk_of(actions: Array, first_step: int = 0, sequence: int = 0, **changes: Any) -> ActionChunk:
    """A chunk of `actions [T, A]` that answers the observation `sequence` of control step `first_step`."""
    fields: dict[str, Any] = {
        "session_id": "s",
        "epoch": 1,
        "sequence": sequence,
        "first_control_step": first_step,
        "dt_ns": round(DT_S * 1e9),
        "actions": actions,
        "valid_until_step": first_step + len(actions),
        "receipt": _RECEIPT,
        "chunk_id": f"{changes.get('epoch', 1)}.{sequence}",
    }
    return ActionChunk(**(fields | changes))


def line(first: float, step: float, num_steps: int, action_dim: int = 1) -> Array:
    """`[num_steps, action_dim]`: from `first` on, `step` more in every row."""
    rows = (first + step * np.arange(num_steps)).astype(np.float32)
    return np.repeat(rows[:, None], action_dim, axis=1)
