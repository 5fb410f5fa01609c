"""Real-time chunking without a model: what a request asks for, what a plan does, and the weights of the left-over.

The left-over is what remains of the robot's chunk at the observation. The robot executes it while the next chunk is
made, and the next chunk continues it (arXiv 2506.07339, 2512.05964). Knows the spec's types and numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wavserve.core.spec import PrefixSchedule, RtcMode, RtcSpec


def no_actions() -> NDArray[np.float32]:
    """The left-over of a robot that has no chunk."""
    return np.zeros((0, 0), np.float32)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class RtcRequest:
    """What a request asks for, unchecked. None: the policy's default."""

    mode: RtcMode | None = None
    prefix_attention_schedule: PrefixSchedule | None = None
    max_guidance_weight: float | None = None
    execution_horizon: int | None = None
    inference_delay: int = 0
    """in consumed steps: actions that the robot executes between the observation and the arrival of its chunk"""
    prev_chunk_left_over: NDArray[np.float32] = field(default_factory=no_actions)
    """`[n, A]`, in declared units: actions of the robot's chunk from the observation's control step on; n may be 0"""


@dataclass(frozen=True, slots=True)
class AppliedRtc(RtcSpec):
    """The settings of one plan: the request's, with the policy's defaults filled in."""

    inference_delay: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Continuation:
    """What the decode of one plan continues, in the model's units."""

    mode: RtcMode
    left_over: NDArray[np.float32]
    """`[T, A]`, padded with its last action"""
    weights: NDArray[np.float32]
    """`[T]`, of the left-over in the guidance; 0: the step is free"""
    max_weight: float
    num_frozen: int
    """first steps that the chunk takes over unchanged"""

    @property
    def guided(self) -> bool:
        """Whether the decode needs derivatives of the action expert, which cost more than the decode itself."""
        return self.mode == "rtc_guided"


def prefix_weights(schedule: PrefixSchedule, delay: int, horizon: int, num_steps: int) -> NDArray[np.float32]:
    """Weights `[num_steps]` of the left-over (arXiv 2506.07339, equation 5): 1 before `delay`, 0 from `horizon` on.

    Between the two, LINEAR falls in equal steps, EXP falls faster, ONES stays at 1 and ZEROS is 0.
    """
    steps = np.arange(num_steps)
    falling = np.clip((horizon - steps) / (max(horizon, delay) - delay + 1), 0.0, 1.0)
    match schedule:
        case "LINEAR":
            soft = falling
        case "EXP":
            soft = falling * np.expm1(falling) / np.expm1(1.0)
        case "ONES":
            soft = np.where(steps < horizon, 1.0, 0.0)
        case "ZEROS":
            soft = np.zeros(num_steps)
    return np.where(steps < delay, 1.0, soft).astype(np.float32)
