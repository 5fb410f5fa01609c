"""The authors' configuration (YAML) and statistics (one JSON object) read into a policy spec.

Called by the importer. Knows nothing of weights. A key that matters is read or checked; one that is missing,
contradicts another or asks for a model we do not have is a BundleError naming it. What the files do not say is asked
for in `ImportOptions`, never guessed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from wavserve.bundle.files import read_json
from wavserve.core.errors import BundleError
from wavserve.core.spec import (
    ActionSpec,
    CameraSpec,
    LatentSpec,
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
ActionKind = Literal["absolute", "delta", "relative"]

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
    """What the authors' files leave unsaid."""

    name: str
    norm: NormKind
    state_units: tuple[str, ...]
    action_units: tuple[str, ...]
    control_hz: float
    domain: str | None = None
    """which of the configured domains; None where there is only one"""
    state_names: tuple[str, ...] | None = None
    """None: state_0, state_1, ..."""
    action_names: tuple[str, ...] | None = None
    absolute_dims: tuple[int, ...] | None = None
    """dimensions left absolute by kinds delta and relative; None: the grippers of the 14-dimensional two-arm vector"""
    memory_threshold: int | None = None
    """None: the configuration's `threshold`, or 1 as the released servers have it"""
    resize: Resize = "exact"
    max_instruction_bytes: int = 1024
    max_prompt_tokens: int = 128


def read_spec(config: Path, stats: Path, options: ImportOptions) -> PolicySpec:
    """The spec of the authors' policy. Raises BundleError naming the key, what was expected and what is there."""
    root = read_yaml(config)
    train = root.section("data").section("train")
    _check_inference(root)
    diffusion = root.section("diffusion_model").section("config")
    state, action = _vectors(root, stats, options)
    channels = state.dim + action.vector.dim
    if diffusion.count("action_in_channels") != channels:
        raise diffusion.refuse("action_in_channels", f"{action.vector.dim} action + {state.dim} state dimensions")
    height, width = _sample_size(train)
    planner, bounds = read_planner(root)
    return PolicySpec(
        name=options.name,
        untrained=False,
        cameras=tuple(CameraSpec(name, height, width, options.resize) for name in train.items("valid_cam", str)),
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
        pad_prompt=True,  # the released code gives the text encoder no mask
        notes=f"imported from {config.name} and {stats.name} (domain {_domain(train, options)}, {options.norm})",
    )


def read_planner(root: Section) -> tuple[PlannerConfig, PlannerBounds]:
    """Planner defaults from `exploration` and `explore_config`, and bounds that let them in."""
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
    least = PlannerBounds()
    bounds = PlannerBounds(
        max_iterations=max(least.max_iterations, config.num_iterations),
        max_video_samples=max(least.max_video_samples, config.num_video_samples),
        max_value_samples=max(least.max_value_samples, config.num_value_samples),
        max_flow_steps=max(least.max_flow_steps, steps),
    )
    return config, bounds


def _check_inference(root: Section) -> None:
    root.require("pixel_wise_timestep", True)
    root.require("add_state", True)
    root.allow("return_value", True)
    data = root.section("data")
    train = data.section("train")
    train.require("value_dense", True)  # otherwise the value tokens are the video's frames, not the chunk's steps
    if "val" in data:
        for key in _AGREE:
            if key in train:
                data.section("val").allow(key, train.values[key])


def _flow_steps(root: Section) -> int:
    keys = [key for key in ("num_inference_step", "num_inference_steps") if key in root]
    if not keys:
        raise root.refuse("num_inference_step", "a whole number above 0")
    steps = root.count(keys[0])
    root.require(keys[-1], steps)
    return steps


def _sample_size(train: Section) -> tuple[int, int]:
    size = train.items("sample_size", int)
    if len(size) != 2:
        raise train.refuse("sample_size", "[height, width]")
    return size[0], size[1]


def _latent(train: Section, height: int, width: int) -> LatentSpec:
    latent = LatentSpec(train.count("n_previous"), 1, height // 32, width // 32)
    if height % latent.spatial_ratio or width % latent.spatial_ratio:
        raise train.refuse("sample_size", f"multiples of {latent.spatial_ratio}")
    chunk = train.count("chunk")
    if (chunk - 1) % latent.temporal_ratio:
        raise train.refuse("chunk", f"1 more than a multiple of {latent.temporal_ratio}")
    return LatentSpec(latent.num_memory_frames, (chunk - 1) // latent.temporal_ratio + 1, latent.height, latent.width)


def _domain(train: Section, options: ImportOptions) -> str:
    domains: list[str] = train.items("domains", str)
    if options.domain is None and len(domains) > 1:
        raise train.refuse("domains", "one domain, or to be told which (--domain)")
    if options.domain is not None and options.domain not in domains:
        raise train.refuse("domains", f"a list with {options.domain!r} (--domain)")
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
    return state, ActionSpec(action, kind, _absolute_dims(kind, action.dim, options))


def _one_of(section: Section, key: str, choices: tuple[str, ...]) -> Any:
    if section.text(key) not in choices:
        raise section.refuse(key, f"one of {', '.join(choices)}")
    return section.text(key)


def _valid_dim(data: Section, key: str) -> int | None:
    """The released code cuts the statistics to this many leading dimensions; it stands in either part of `data`."""
    parts = [data.section(name) for name in ("train", "val") if name in data]
    told = [part for part in parts if part.values.get(key) is not None]
    for part in told:
        part.require(key, told[0].count(key))
    return told[0].count(key) if told else None


def _norm(table: dict[str, Any], key: str, kind: NormKind, dim: int | None) -> NormSpec:
    if not isinstance(table.get(key), dict):
        raise BundleError(f"stats: {key}: expected one of the file's keys, which are {', '.join(table)}")
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
    for told, values in (("names", names), ("units", units)):
        if len(values) != dim:
            raise BundleError(f"--{what}-{told}: expected {dim}, as the statistics have dimensions, got {len(values)}")
    return VectorSpec(names, units, norm)


def _absolute_dims(kind: ActionKind, dim: int, options: ImportOptions) -> tuple[int, ...]:
    if options.absolute_dims is not None:
        return options.absolute_dims
    if kind == "absolute":
        return ()
    if dim not in _GRIPPERS:
        raise BundleError(f"--absolute-dims: expected for {kind} actions of {dim} dimensions, got nothing")
    return _GRIPPERS[dim]
