"""Real-time chunking as a request asks for it: the new chunk continues the actions that the robot still executes.

Nothing here is checked. `spec.RtcSpec` has the policy's defaults. Knows neither the planner nor a wire.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wavserve.core.spec import PrefixSchedule, RtcMode


def _no_rows() -> NDArray[np.float32]:
    return np.zeros((0, 0), np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class RtcRequest:
    """The wish of one request. None: the policy's default."""

    mode: RtcMode | None = None
    prefix_attention_schedule: PrefixSchedule | None = None
    max_guidance_weight: float | None = None
    execution_horizon: int | None = None
    """steps of the left-over that guide the flow"""
    inference_delay: int = 0
    """steps that the robot executes between the observation and the arrival of its chunk"""
    prev_chunk_left_over: NDArray[np.float32] = field(default_factory=_no_rows)
    """`[n, A]`, in the policy's units: the previous chunk from the observation's control step on; n may be 0"""
