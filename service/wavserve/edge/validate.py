"""Checks an observation's texts, numbers, options, left-over and state against the policy, for both edges.

`images` checks the images, and the encoder checks the number of prompt tokens. Each refusal names field, expected and
actual. Nothing is repaired or guessed.
"""

from __future__ import annotations

import math

import numpy as np

from wavserve.core.errors import InvalidRequest, TooLarge, UnknownPolicy
from wavserve.core.messages import DEADLINE_KEY, MAX_INT64, Observation
from wavserve.core.normalise import accepted_range
from wavserve.core.options import merge_options
from wavserve.core.rtc_options import merge_rtc
from wavserve.core.spec import PolicySpec, VectorSpec
from wavserve.core.types import Array
from wavserve.wire import MAX_MILLISECONDS

MAX_EXECUTED_STEPS = 10_000
MAX_SESSION_ID_CHARS = 128
_MAX_DIGITS = 20


def check(observation: Observation, spec: PolicySpec) -> Array:
    """Checks an observation and returns its state `[S]` as float32. Raises InvalidRequest or a child of it."""
    check_policy(observation.policy, spec)
    if observation.session_id is not None:
        check_session_id(observation.session_id)
    check_instruction(observation.instruction, spec.max_instruction_bytes)
    _check_range("sequence", observation.sequence, 0, MAX_INT64)
    _check_range("control_step", observation.control_step, 0, MAX_INT64)
    _check_range("executed_steps", observation.executed_steps, 0, MAX_EXECUTED_STEPS)
    if observation.seed is not None:
        _check_range("seed", observation.seed, 0, MAX_INT64)
    if observation.deadline_ms is not None:
        _check_range("deadline_ms", observation.deadline_ms, 1, MAX_MILLISECONDS)
    _check_range("imagine_chunks", observation.imagine_chunks, 0, spec.bounds.max_imagined_chunks)
    for image in observation.images:
        _check_range(f"images.{image.camera}.captured_mono_ns", image.captured_mono_ns, 0, MAX_INT64)
    merge_options(spec.planner, spec.bounds, dict(observation.options))
    merge_rtc(spec, observation.rtc, observation.executed_steps)
    return _state(observation.state, spec.state)


def check_policy(name: str | None, spec: PolicySpec) -> None:
    """Raises UnknownPolicy unless `name` is the served policy or None."""
    if name is not None and name != spec.name:
        raise UnknownPolicy("policy", spec.name, repr(name[:64]))


def header_deadline_ms(text: str) -> int:
    """The milliseconds in one `x-deadline-ms` header. Raises InvalidRequest."""
    if not (text.isascii() and text.isdecimal()):
        raise InvalidRequest(DEADLINE_KEY, "a whole number of milliseconds", repr(text[:_MAX_DIGITS]))
    if len(text) > _MAX_DIGITS:
        raise InvalidRequest(DEADLINE_KEY, f"1 to {MAX_MILLISECONDS}", f"a number of {len(text)} digits")
    _check_range(DEADLINE_KEY, int(text), 1, MAX_MILLISECONDS)
    return int(text)


def check_session_id(session_id: str) -> None:
    """Raises InvalidRequest for a text that cannot be a session's id."""
    if any("\ud800" <= char <= "\udfff" for char in session_id[:MAX_SESSION_ID_CHARS]):
        raise InvalidRequest("session_id", "text that UTF-8 can encode", "a lone surrogate")
    if not 1 <= len(session_id) <= MAX_SESSION_ID_CHARS:
        raise InvalidRequest("session_id", f"1 to {MAX_SESSION_ID_CHARS} characters", f"{len(session_id)} characters")


def check_instruction(instruction: str, max_bytes: int) -> None:
    """Raises InvalidRequest for a blank text, and TooLarge for a long one."""
    try:
        num_bytes = len(instruction.encode())
    except UnicodeEncodeError:
        raise InvalidRequest("instruction", "text that UTF-8 can encode", "a lone surrogate") from None
    if not instruction.strip():
        raise InvalidRequest("instruction", "text that is not blank", f"{num_bytes} bytes of white space")
    if num_bytes > max_bytes:
        raise TooLarge("instruction", f"at most {max_bytes} bytes of UTF-8", f"{num_bytes} bytes")


def _check_range(field: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise InvalidRequest(field, f"{low} to {high}", value)


def _state(values: tuple[float, ...], vector: VectorSpec) -> Array:
    if len(values) != vector.dim:
        raise InvalidRequest("state", f"{vector.dim} numbers", f"{len(values)} numbers")
    with np.errstate(over="ignore"):  # a number too large for float32 becomes infinite and is refused below
        state = np.asarray(values, np.float32)
    for index, number in enumerate(state):
        if not math.isfinite(number):
            raise InvalidRequest(f"state[{index}]", "a finite float32", values[index])
    lowest, highest = accepted_range(vector.norm)
    sent = np.asarray(values, np.float64)  # as the contract states the range, before any rounding
    for index in np.flatnonzero((sent < lowest) | (sent > highest)).tolist():
        raise InvalidRequest(f"state[{index}]", f"{lowest[index]:g} to {highest[index]:g}", values[index])
    return state
