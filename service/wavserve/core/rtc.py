"""Real-time chunking without a model: what a request asks for, its checks, and the weights of the left-over.

The left-over is what remains of the robot's chunk at the observation; the robot executes it while the next chunk is
made. The next chunk continues it (arXiv 2506.07339, 2512.05964). Knows the spec and numpy; knows no wire and no model.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from wavserve.core.errors import InvalidRequest, shown
from wavserve.core.spec import PREFIX_SCHEDULES, RTC_MODES, PolicySpec, PrefixSchedule, RtcMode, RtcSpec

MAX_GUIDANCE_WEIGHT = 1000.0
"""The largest `max_guidance_weight` that a request may set."""


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


def merge_rtc(spec: PolicySpec, request: RtcRequest | None, executed_steps: int) -> AppliedRtc:
    """The settings of one plan. `executed_steps`: since the observation that the left-over's chunk was made from.

    Raises InvalidRequest naming `rtc.<field>`, or `executed_steps` when the chunk was used up before.
    """
    request = request or RtcRequest()
    stated = {each.name: value for each in fields(RtcSpec) if (value := getattr(request, each.name)) is not None}
    applied = AppliedRtc(**{**asdict(spec.rtc), **stated}, inference_delay=request.inference_delay)
    _check_settings(applied, spec, stated)
    _check_left_over(request.prev_chunk_left_over, spec)
    _check_delay(applied, spec, len(request.prev_chunk_left_over), executed_steps)
    return applied


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


def _check_settings(applied: AppliedRtc, spec: PolicySpec, stated: dict[str, object]) -> None:
    if applied.mode not in RTC_MODES:
        raise InvalidRequest("rtc.mode", f"one of {', '.join(RTC_MODES)}", shown(applied.mode))
    if applied.mode == "rtc_trained" and not spec.max_trained_delay:
        expected = "another mode, because this policy was not trained to continue a chunk (max_trained_delay is 0)"
        raise InvalidRequest("rtc.mode", expected, applied.mode)
    if applied.prefix_attention_schedule not in PREFIX_SCHEDULES:
        expected = f"one of {', '.join(PREFIX_SCHEDULES)}"
        raise InvalidRequest("rtc.prefix_attention_schedule", expected, shown(applied.prefix_attention_schedule))
    if not 0 <= applied.max_guidance_weight <= MAX_GUIDANCE_WEIGHT:  # also true for NaN
        raise InvalidRequest("rtc.max_guidance_weight", f"0 to {MAX_GUIDANCE_WEIGHT:g}", applied.max_guidance_weight)
    if "execution_horizon" in stated and not 0 <= applied.execution_horizon <= spec.chunk:
        raise InvalidRequest("rtc.execution_horizon", f"0 to {spec.chunk}, the horizon", applied.execution_horizon)


def _check_left_over(left_over: NDArray[np.float32], spec: PolicySpec) -> None:
    field_name, dim = "rtc.prev_chunk_left_over", spec.action.vector.dim
    if left_over.ndim != 2:
        raise InvalidRequest(field_name, f"[n, {dim}] numbers", f"shape {list(left_over.shape)}")
    num_steps, num_numbers = left_over.shape
    if num_steps > spec.chunk:
        raise InvalidRequest(field_name, f"at most {spec.chunk} actions, the horizon", f"{num_steps} actions")
    if num_steps and num_numbers != dim:
        raise InvalidRequest(field_name, f"actions of {dim} numbers", f"{num_numbers} numbers")
    for step, index in np.argwhere(~np.isfinite(left_over))[:1]:
        raise InvalidRequest(f"{field_name}[{step}][{index}]", "a finite float32", left_over[step, index])


def _check_delay(applied: AppliedRtc, spec: PolicySpec, num_left: int, executed_steps: int) -> None:
    """The paper's condition, delay <= executed <= horizon - delay, and what follows from the left-over."""
    delay, name = applied.inference_delay, "rtc.inference_delay"
    if not 0 <= delay <= num_left:
        raise InvalidRequest(name, f"0 to {num_left}, the actions of prev_chunk_left_over", delay)
    if not num_left:
        return
    if delay > executed_steps:
        raise InvalidRequest(name, f"at most {executed_steps}, the executed steps", delay)
    if executed_steps > spec.chunk - delay:
        expected = f"at most {spec.chunk - delay}, the horizon minus the delay, or no prev_chunk_left_over"
        raise InvalidRequest("executed_steps", expected, executed_steps)
    if applied.mode == "rtc_trained" and delay > spec.max_trained_delay:
        raise InvalidRequest(name, f"at most {spec.max_trained_delay}, the delay the policy was trained for", delay)
