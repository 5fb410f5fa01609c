"""The authors' configuration (YAML) and statistics (one JSON object), read into a policy spec.

Every relevant key is read or checked. A key that is missing, contradicts another or needs an unsupported model raises
BundleError naming the key. `ImportOptions` holds the values that the files lack; nothing is guessed. This module knows
nothing of weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from wavserve.bundle.bundle import load_limits
from wavserve.bundle.files import read_json
from wavserve.core.errors import BundleError
from wavserve.core.spec import (
    ActionKind,
    ActionSpec,
    CameraSpec,
    Hold,
    LatentSpec,
    LimitsSpec,
    NormSpec,
    PlannerBounds,
    PlannerConfig,
    PolicySpec,
    Resize,
    VectorSpec,
)
from wavserve.models.weights.official_model import read_model
from wavserve.models.weights.sections import Section, read_yaml

NormKind = Literal["minmax", "meanstd"]

_GRIPPERS = {14: (6, 13)}  # the released two-arm vector: left arm, its gripper, right arm, its gripper
_AGREE = (
    "valid_cam",
    "sample_size",
    "chunk",
    "action_chunk",
    "n_previous",
    "action_type",
    "action_space",
    "value_dense",
)


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """Values that the authors' files lack."""

    name: str
    norm: NormKind
    state_units: tuple[str, ...]
    action_units: tuple[str, ...]
    control_hz: float
    domain: str | None = None
    """one of the configured domains; None where there is only one"""
    state_names: tuple[str, ...] | None = None
    """None: state_0, state_1, ..."""
    action_names: tuple[str, ...] | None = None
    absolute_dims: tuple[int, ...] | None = None
    """dimensions that stay absolute in delta and relative actions; None: the grippers of the 14-dimensional vector"""
    memory_threshold: int | None = None
    """None: the configuration's `threshold`, or 1, the value of the released servers"""
    resize: Resize = "exact"
    embodiment: str = ""
    """the kind of robot; empty: not declared"""
    rotated_cameras: tuple[str, ...] = ()
    """cameras whose images were rotated by 180 degrees in training"""
    limits: Path | None = None
    """JSON file with the action's kinematic limits; None: no limit is declared"""
    hold: tuple[Hold, ...] = ()
    """what a hold sends, for each dimension of the action; empty: the last command"""
    with_golden: bool = True
    """whether the bundle gets a golden plan"""
    max_instruction_bytes: int = 1024
    max_prompt_tokens: int = 128


def read_spec(config: Path, stats: Path, options: ImportOptions) -> PolicySpec:
    """The spec of the authors' policy. Raises BundleError naming the key, the expected and the actual value."""
    root = read_yaml(config)
    train = root.section("data").section("train")
    _check_inference(root)
    diffusion = root.section("diffusion_model").section("config")
    state, action = _vectors(root, stats, options)
    channels = state.dim + action.vector.dim
    if diffusion.count("action_in_channels") != channels:
        raise diffusion.error("action_in_channels", f"{action.vector.dim} action + {state.dim} state dimensions")
    height, width = _sample_size(train)
    planner, bounds = read_planner(root)
    return PolicySpec(
        name=options.name,
        untrained=False,
        cameras=_cameras(train, height, width, options),
        state=state,
        action=action,
        chunk=train.count("action_chunk"),
        control_hz=options.control_hz,
        memory_threshold=options.memory_threshold or root.count("threshold", otherwise=1),
        max_instruction_bytes=options.max_instruction_bytes,
        max_prompt_tokens=options.max_prompt_tokens,
        model=read_model(diffusion),
        latent=_latent(train, height, width),
        planner=planner,
        bounds=bounds,
        pad_prompt=True,  # the released code runs the text encoder without a padding mask
        embodiment=options.embodiment,
        notes=f"imported from {config.name} and {stats.name} (domain {_domain(train, options)}, {options.norm})",
    )


def read_planner(root: Section) -> tuple[PlannerConfig, PlannerBounds]:
    """Planner defaults from `exploration` and `explore_config` (paper section 4.3), and bounds that allow them.

    Raises BundleError naming the key.
    """
    steps = _flow_steps(root)
    if not root.flag("exploration"):
        return PlannerConfig(mode="off", num_flow_steps=steps), PlannerBounds(max_flow_steps=max(50, steps))
    explore = root.section("explore_config")
    config = PlannerConfig(
        num_iterations=explore.count("explore_steps"),
        num_video_samples=explore.count("dynamic_groups"),
        num_value_samples=explore.count("value_groups"),
        num_flow_steps=steps,
        smoothing=explore.number("alpha_smooth"),
        decay=explore.number("sigma_decay"),
        video_elite_fraction=explore.number("dynamic_elites"),
        value_elite_fraction=explore.number("value_elites"),
    )
    default = PlannerBounds()
    bounds = PlannerBounds(
        max_iterations=max(default.max_iterations, config.num_iterations),
        max_video_samples=max(default.max_video_samples, config.num_video_samples),
        max_value_samples=max(default.max_value_samples, config.num_value_samples),
        max_flow_steps=max(default.max_flow_steps, steps),
    )
    return config, bounds


def _check_inference(root: Section) -> None:
    root.require("pixel_wise_timestep", True)
    root.require("add_state", True)
    root.allow("return_value", True)
    data = root.section("data")
    train = data.section("train")
    train.require("value_dense", True)  # otherwise value tokens stand for video frames, not for the chunk's steps
    if "val" in data:
        for key in _AGREE:
            if key in train:
                data.section("val").allow(key, train.values[key])


def _flow_steps(root: Section) -> int:
    keys = [key for key in ("num_inference_step", "num_inference_steps") if key in root]
    if not keys:
        raise root.error("num_inference_step", "a whole number above 0")
    steps = root.count(keys[0])
    root.require(keys[-1], steps)
    return steps


def _sample_size(train: Section) -> tuple[int, int]:
    size = train.items("sample_size", int)
    if len(size) != 2:
        raise train.error("sample_size", "[height, width]")
    return size[0], size[1]


def _cameras(train: Section, height: int, width: int, options: ImportOptions) -> tuple[CameraSpec, ...]:
    names, rotated = train.items("valid_cam", str), options.rotated_cameras
    if unknown := set(rotated).difference(names):
        raise BundleError(f"--rotated-cameras: expected names of {', '.join(names)}, got {', '.join(sorted(unknown))}")
    return tuple(
        CameraSpec(name, height, width, options.resize, "rotated_180" if name in rotated else "as_captured")
        for name in names
    )


def _latent(train: Section, height: int, width: int) -> LatentSpec:
    latent = LatentSpec(train.count("n_previous"), 1, height // 32, width // 32)
    if height % latent.spatial_ratio or width % latent.spatial_ratio:
        raise train.error("sample_size", f"multiples of {latent.spatial_ratio}")
    chunk = train.count("chunk")
    if (chunk - 1) % latent.temporal_ratio:
        raise train.error("chunk", f"a multiple of {latent.temporal_ratio}, plus 1")
    return LatentSpec(latent.num_memory_frames, (chunk - 1) // latent.temporal_ratio + 1, latent.height, latent.width)


def _domain(train: Section, options: ImportOptions) -> str:
    domains: list[str] = train.items("domains", str)
    if options.domain is None and len(domains) > 1:
        raise train.error("domains", "one domain, or --domain to choose one of them")
    if options.domain is not None and options.domain not in domains:
        raise train.error("domains", f"a list with {options.domain!r} (--domain)")
    return options.domain or domains[0]


def _vectors(root: Section, stats: Path, options: ImportOptions) -> tuple[VectorSpec, ActionSpec]:
    data = root.section("data")
    train = data.section("train")
    kind = _one_of(train, "action_type", ("absolute", "delta", "relative"))
    space = _one_of(train, "action_space", ("eef", "joint"))
    domain, table = _domain(train, options), read_json(stats)
    state_norm = _norm(table, f"{domain}_state_{space}", options.norm, _valid_dim(data, "valid_sta_dim"))
    key = f"{domain}_delta_{space}" if kind == "delta" else f"{domain}_{space}"
    action_norm = _norm(table, key, options.norm, _valid_dim(data, "valid_act_dim"))
    state = _vector("state", state_norm, options.state_names, options.state_units)
    action = _vector("action", action_norm, options.action_names, options.action_units)
    limits = LimitsSpec() if options.limits is None else load_limits(options.limits)
    return state, ActionSpec(action, kind, _absolute_dims(kind, action.dim, options), limits, options.hold)


def _one_of(section: Section, key: str, choices: tuple[str, ...]) -> Any:
    if section.text(key) not in choices:
        raise section.error(key, f"one of {', '.join(choices)}")
    return section.text(key)


def _valid_dim(data: Section, key: str) -> int | None:
    """Number of leading dimensions of the statistics that the released code uses; None: all.

    The key may be in either part of `data`.
    """
    parts = [data.section(name) for name in ("train", "val") if name in data]
    parts = [part for part in parts if part.values.get(key) is not None]
    for part in parts:
        part.require(key, parts[0].count(key))
    return parts[0].count(key) if parts else None


def _norm(table: dict[str, Any], key: str, kind: NormKind, dim: int | None) -> NormSpec:
    if not isinstance(table.get(key), dict):
        raise BundleError(f"stats: {key}: expected an object of this name, got the keys {', '.join(table)}")
    names = ("q01", "q99") if kind == "minmax" else ("mean", "std")
    low, high = (_numbers(table[key], key, name) for name in names)
    if len(low) != len(high) or (dim is not None and len(low) < dim):
        expected = f"{dim} numbers or more" if dim else "as many numbers in both"
        raise BundleError(f"stats: {key}: expected {expected}, got {len(low)} {names[0]} and {len(high)} {names[1]}")
    return NormSpec(kind, low[:dim], high[:dim])


def _numbers(entry: dict[str, Any], key: str, name: str) -> tuple[float, ...]:
    values = entry.get(name)
    if not isinstance(values, list) or not values:
        raise BundleError(f"stats: {key}.{name}: expected a list of numbers, got {values!r}")
    for i, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise BundleError(f"stats: {key}.{name}[{i}]: expected a finite number, got {value!r}")
    return tuple(map(float, values))


def _vector(what: str, norm: NormSpec, names: tuple[str, ...] | None, units: tuple[str, ...]) -> VectorSpec:
    dim = len(norm.low)
    names = names or tuple(f"{what}_{i}" for i in range(dim))
    for option, values in (("names", names), ("units", units)):
        if len(values) != dim:
            raise BundleError(f"--{what}-{option}: expected {dim} (dimensions of the statistics), got {len(values)}")
    return VectorSpec(names, units, norm)


def _absolute_dims(kind: ActionKind, dim: int, options: ImportOptions) -> tuple[int, ...]:
    if options.absolute_dims is not None:
        return options.absolute_dims
    if kind == "absolute":
        return ()
    if dim not in _GRIPPERS:
        raise BundleError(f"--absolute-dims: expected a value for {kind} actions of {dim} dimensions, got nothing")
    return _GRIPPERS[dim]
