"""Merges a request's real-time chunking into the policy's defaults and checks it against the policy.

Knows the spec and its statistics only.
"""

from __future__ import annotations

from dataclasses import asdict, fields

import numpy as np
from numpy.typing import NDArray

from wavserve.core.errors import InvalidRequest, shown
from wavserve.core.normalise import accepted_range
from wavserve.core.rtc import AppliedRtc, RtcRequest
from wavserve.core.spec import PREFIX_SCHEDULES, RTC_MODES, PolicySpec, RtcSpec

MAX_GUIDANCE_WEIGHT = 1000.0
"""The largest `max_guidance_weight` that a request may set."""
_LEFT_OVER, _DELAY = "rtc.prev_chunk_left_over", "rtc.inference_delay"


def merge_rtc(spec: PolicySpec, request: RtcRequest | None, executed_steps: int) -> AppliedRtc:
    """The settings of one plan. `executed_steps`: since the observation that the left-over's chunk was made from.

    Raises InvalidRequest naming `rtc.<field>`, or `executed_steps` when the chunk was used up before.
    """
    request = request or RtcRequest()
    stated = {each.name: value for each in fields(RtcSpec) if (value := getattr(request, each.name)) is not None}
    applied = AppliedRtc(**{**asdict(spec.rtc), **stated}, inference_delay=request.inference_delay)
    _check_settings(applied, spec)
    _check_left_over(request.prev_chunk_left_over, spec)
    _check_delay(applied, spec, len(request.prev_chunk_left_over), executed_steps)
    return applied


def _check_settings(applied: AppliedRtc, spec: PolicySpec) -> None:
    if applied.mode not in RTC_MODES:
        raise InvalidRequest("rtc.mode", f"one of {', '.join(RTC_MODES)}", shown(applied.mode))
    if applied.mode not in spec.rtc_modes:
        expected = "another mode, because this policy was not trained to continue a chunk (max_trained_delay is 0)"
        raise InvalidRequest("rtc.mode", expected, applied.mode)
    if applied.prefix_attention_schedule not in PREFIX_SCHEDULES:
        expected = f"one of {', '.join(PREFIX_SCHEDULES)}"
        raise InvalidRequest("rtc.prefix_attention_schedule", expected, shown(applied.prefix_attention_schedule))
    if not 0 <= applied.max_guidance_weight <= MAX_GUIDANCE_WEIGHT:  # also true for NaN
        raise InvalidRequest("rtc.max_guidance_weight", f"0 to {MAX_GUIDANCE_WEIGHT:g}", applied.max_guidance_weight)
    if not 1 <= applied.execution_horizon <= spec.chunk:
        raise InvalidRequest("rtc.execution_horizon", f"1 to {spec.chunk}, the horizon", applied.execution_horizon)


def _check_left_over(left_over: NDArray[np.float32], spec: PolicySpec) -> None:
    dim = spec.action.vector.dim
    if left_over.ndim != 2:
        raise InvalidRequest(_LEFT_OVER, f"[n, {dim}] numbers", f"shape {list(left_over.shape)}")
    num_steps, num_numbers = left_over.shape
    if num_steps > spec.chunk:
        raise InvalidRequest(_LEFT_OVER, f"at most {spec.chunk} actions, the horizon", f"{num_steps} actions")
    if num_steps and num_numbers != dim:
        raise InvalidRequest(_LEFT_OVER, f"actions of {dim} numbers", f"{num_numbers} numbers")
    for step, index in np.argwhere(~np.isfinite(left_over))[:1]:
        raise InvalidRequest(f"{_LEFT_OVER}[{step}][{index}]", "a finite float32", left_over[step, index])
    if not num_steps:
        return
    low, high = accepted_range(spec.action.vector.norm)
    for step, index in np.argwhere((left_over < low) | (left_over > high))[:1]:
        expected = f"{low[index]:g} to {high[index]:g}"
        raise InvalidRequest(f"{_LEFT_OVER}[{step}][{index}]", expected, left_over[step, index])


def _check_delay(applied: AppliedRtc, spec: PolicySpec, num_left: int, executed_steps: int) -> None:
    """The paper's condition, delay <= executed <= horizon - delay, and what follows from the left-over."""
    delay = applied.inference_delay
    if not 0 <= delay <= num_left:
        raise InvalidRequest(_DELAY, f"0 to {num_left}, the actions of prev_chunk_left_over", delay)
    if not num_left:
        return
    if delay > executed_steps:
        raise InvalidRequest(_DELAY, f"at most {executed_steps}, the executed steps", delay)
    if executed_steps > spec.chunk - delay:
        expected = f"at most {spec.chunk - delay}, the horizon minus the delay, or no prev_chunk_left_over"
        raise InvalidRequest("executed_steps", expected, executed_steps)
    if applied.mode == "rtc_trained" and delay > spec.max_trained_delay:
        raise InvalidRequest(_DELAY, f"at most {spec.max_trained_delay}, the delay the policy was trained for", delay)
