"""Checks that a policy spec is consistent: lengths, sizes, bounds, finite statistics.

Pure functions of the spec; knows neither files nor torch. Every failure is a BundleError that names the path inside
`policy.json`, the expected and the actual value.
"""

from __future__ import annotations

import math
from dataclasses import fields
from typing import get_args

from wavserve.core.errors import BundleError, InvalidRequest
from wavserve.core.options import merge_options
from wavserve.core.rtc_options import MAX_GUIDANCE_WEIGHT
from wavserve.core.spec import ActionSpec, ExpertConfig, Hold, LatentSpec, NormSpec, PolicySpec, VectorSpec

_CONTROL_HZ = (0.001, 100_000.0)
"""The time between two steps is sent in whole nanoseconds."""


def entry_error(path: str, expected: object, actual: object) -> BundleError:
    """The error of one wrong entry of `policy.json`."""
    return BundleError(f"policy.json: {path}: expected {expected}, got {actual}")


def check_spec(spec: PolicySpec) -> None:
    """Raises BundleError at the first entry of `spec` that contradicts another or cannot be served."""
    _check_scalars(spec)
    if spec.num_value_tokens < 2:
        raise entry_error("value_chunk", "at least 2 (a score is a ratio of mean and deviation)", spec.num_value_tokens)
    _check_value_norm(spec.value_norm)
    _check_vector("state", spec.state)
    _check_vector("action.vector", spec.action.vector)
    _check_action(spec)
    _check_limits(spec.action, spec.chunk)
    _check_rtc(spec)
    _check_model(spec)
    _check_cameras(spec)
    _check_planner(spec)


def _positive(path: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise entry_error(path, "a finite number above 0", value)


def _equal(path: str, expected: int, actual: int, why: str) -> None:
    if expected != actual:
        raise entry_error(path, f"{expected} ({why})", actual)


def _check_scalars(spec: PolicySpec) -> None:
    if not spec.name.strip():
        raise entry_error("name", "a name", repr(spec.name))
    for name in ("chunk", "control_hz", "memory_threshold", "max_instruction_bytes", "max_prompt_tokens"):
        _positive(name, getattr(spec, name))
    _within("control_hz", spec.control_hz, *_CONTROL_HZ)
    for entry in fields(LatentSpec):
        _positive(f"latent.{entry.name}", getattr(spec.latent, entry.name))


def _check_vector(path: str, vector: VectorSpec) -> None:
    if not vector.names:
        raise entry_error(f"{path}.names", "at least 1 name", "none")
    if len(set(vector.names)) != vector.dim:
        raise entry_error(f"{path}.names", "distinct names", list(vector.names))
    _equal_length(f"{path}.units", vector.units, vector.dim)
    for i, unit in enumerate(vector.units):
        if not unit.strip():
            raise entry_error(f"{path}.units[{i}]", "a unit", repr(unit))
    _check_norm(f"{path}.norm", vector.norm, vector.dim)


def _equal_length(path: str, values: tuple[object, ...], dim: int) -> None:
    if len(values) != dim:
        raise entry_error(path, f"{dim} entries, one per name", len(values))


def _check_norm(path: str, norm: NormSpec, dim: int) -> None:
    for name in ("low", "high"):
        values: tuple[float, ...] = getattr(norm, name)
        _equal_length(f"{path}.{name}", values, dim)
        for i, value in enumerate(values):
            if not math.isfinite(value):
                raise entry_error(f"{path}.{name}[{i}]", "a finite number", value)
    floors = norm.low if norm.kind == "minmax" else (0.0,) * dim
    for i, (floor, high) in enumerate(zip(floors, norm.high, strict=True)):
        if high < floor:
            raise entry_error(f"{path}.high[{i}]", f"at least {floor} ({norm.kind})", high)


def _check_value_norm(norm: NormSpec | None) -> None:
    if norm is None:
        return
    if norm.kind != "meanstd":
        raise entry_error("value_norm.kind", "meanstd", repr(norm.kind))
    _check_norm("value_norm", norm, len(("reward", "return")))


def _check_action(spec: PolicySpec) -> None:
    action = spec.action
    dims = action.absolute_dims
    if len(set(dims)) != len(dims) or any(not 0 <= d < action.vector.dim for d in dims):
        raise entry_error("action.absolute_dims", f"distinct indices from 0 to {action.vector.dim - 1}", list(dims))
    if action.kind != "absolute":
        _check_offsets(action, spec.state)


def _check_offsets(action: ActionSpec, state: VectorSpec) -> None:
    """Kinds `delta` and `relative` add the state to the action, so both must be the same quantity."""
    for d in set(range(action.vector.dim)) - set(action.absolute_dims):
        if d >= state.dim:
            raise entry_error(
                "action.kind", f"absolute, or a state of more than {d} dimensions", f"{action.kind} and {state.dim}"
            )
        if action.vector.units[d] != state.units[d]:
            raise entry_error(
                f"action.vector.units[{d}]", f"{state.units[d]!r} as in the state", repr(action.vector.units[d])
            )


def _check_limits(action: ActionSpec, chunk: int) -> None:
    limits, names = action.limits, action.vector.names
    for kind in ("position", "velocity", "jerk"):
        entries: tuple[object, ...] = getattr(limits, kind)
        if len(entries) not in (0, len(names)):
            raise entry_error(f"action.limits.{kind}", f"no entry, or {len(names)}, one per name", len(entries))
    for i, bounds in enumerate(limits.position):
        if bounds is not None and not (all(map(math.isfinite, bounds)) and bounds[0] < bounds[1]):
            raise entry_error(f"action.limits.position[{i}]", "two finite numbers, the lower first", list(bounds))
    for kind in ("velocity", "jerk"):
        for i, bound in enumerate(getattr(limits, kind)):
            if bound is not None:
                _positive(f"action.limits.{kind}[{i}]", bound)
    _within("action.limits.min_horizon", limits.min_horizon, 1, chunk)
    if len(action.hold) not in (0, len(names)):
        raise entry_error("action.hold", f"no entry, or {len(names)}, one per name", len(action.hold))
    for i, hold in enumerate(action.hold):
        if hold not in get_args(Hold):
            raise entry_error(f"action.hold[{i}]", " or ".join(get_args(Hold)), repr(hold))


def _check_rtc(spec: PolicySpec) -> None:
    _positive("rtc.max_guidance_weight", spec.rtc.max_guidance_weight)
    _within("rtc.max_guidance_weight", spec.rtc.max_guidance_weight, 0, MAX_GUIDANCE_WEIGHT)
    _within("rtc.execution_horizon", spec.rtc.execution_horizon, 1, spec.chunk)
    _within("max_trained_delay", spec.max_trained_delay, 0, spec.chunk - 1)
    if spec.rtc.mode not in spec.rtc_modes:
        raise entry_error("rtc.mode", "another mode while max_trained_delay is 0", spec.rtc.mode)


def _within(path: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise entry_error(path, f"{low:g} to {high:g}", value)


def _check_model(spec: PolicySpec) -> None:
    model, video = spec.model, spec.model.video
    for name in ("rope_theta", "norm_eps", "qk_norm_eps", "out_norm_eps"):
        _positive(f"model.{name}", getattr(model, name))
    for entry in fields(video):
        value = getattr(video, entry.name)
        for number in value if isinstance(value, tuple) else (value,):
            _positive(f"model.video.{entry.name}", number)
    _equal("model.video.out_channels", video.in_channels, video.out_channels, "model.video.in_channels")
    for name in ("value", "action"):
        expert: ExpertConfig = getattr(model, name)
        for entry in fields(expert):
            _positive(f"model.{name}.{entry.name}", getattr(expert, entry.name))
        _equal(f"model.{name}.out_channels", expert.in_channels, expert.out_channels, f"model.{name}.in_channels")
    channels = spec.action.vector.dim + spec.state.dim
    why = f"{spec.action.vector.dim} action + {spec.state.dim} state dimensions"
    _equal("model.action.in_channels", channels, model.action.in_channels, why)


def _check_cameras(spec: PolicySpec) -> None:
    names = [camera.name for camera in spec.cameras]
    if not 1 <= len(names) <= spec.model.video.max_views:
        raise entry_error("cameras", f"1 to {spec.model.video.max_views} (model.video.max_views)", len(names))
    if len(set(names)) != len(names) or not all(name.strip() for name in names):
        raise entry_error("cameras", "distinct names", names)
    for i, camera in enumerate(spec.cameras):
        for side in ("height", "width"):
            pixels = getattr(spec.latent, side) * spec.latent.spatial_ratio
            _equal(f"cameras[{i}].{side}", pixels, getattr(camera, side), f"latent.{side} x latent.spatial_ratio")


def _check_planner(spec: PolicySpec) -> None:
    for entry in fields(spec.bounds):
        least = 0 if entry.name in ("max_iterations", "max_imagined_chunks") else 1
        value = getattr(spec.bounds, entry.name)
        if value < least:
            raise entry_error(f"bounds.{entry.name}", f"at least {least}", value)
    try:
        merge_options(spec.planner, spec.bounds, {})
    except InvalidRequest as error:
        raise entry_error(error.field, error.expected, error.actual) from error
