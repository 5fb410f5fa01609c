"""Merges a request's planner options into the policy's defaults and checks them against its bounds.

Knows the spec only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace

from wavserve.core.errors import InvalidRequest, shown
from wavserve.core.spec import MODES, PlannerBounds, PlannerConfig

_MAX_NUMBER = 1e300
_MAX_ITERATIONS: Mapping[str, int] = {"off": 0, "best_of_n": 1}
"""Of the modes that have few."""
_TYPES = {bool: "true or false", int: "an integer", float: "a finite number", str: "a text"}


def merge_options(defaults: PlannerConfig, bounds: PlannerBounds, options: dict[str, object]) -> PlannerConfig:
    """The planner settings of one request: its options replace the bundle's defaults. Mode `off` has no iterations, and
    `best_of_n` has one, unless none is asked for.

    Raises InvalidRequest naming `planner.<option>` for an unknown option, a wrong type, a value out of bounds, more
    iterations than the mode has, or fewer than two elites.
    """
    known = {f.name: f.type for f in fields(PlannerConfig)}
    for name, value in options.items():
        if name not in known:
            raise InvalidRequest(f"planner.{name}", f"one of {', '.join(known)}", "an unknown option")
        _check_type(name, value, getattr(defaults, name))
    config = replace(defaults, **options)  # type: ignore[arg-type]  # checked above
    if (most := _MAX_ITERATIONS.get(config.mode)) is not None:
        if "num_iterations" not in options:  # the default is that of another mode
            config = replace(config, num_iterations=most)
        elif config.num_iterations > most:
            raise InvalidRequest(
                "planner.num_iterations", f"at most {most} in mode {config.mode}", config.num_iterations
            )
    _check_bounds(config, bounds)
    return config


def _check_type(name: str, value: object, default: object) -> None:
    if isinstance(default, bool) or isinstance(value, bool):
        ok = isinstance(value, bool) and isinstance(default, bool)
    elif isinstance(default, float):
        ok = isinstance(value, int | float) and abs(value) <= _MAX_NUMBER  # also false for NaN
    else:
        ok = isinstance(value, type(default))
    if not ok:
        raise InvalidRequest(f"planner.{name}", _TYPES[type(default)], shown(value))


def option_ranges(bounds: PlannerBounds) -> dict[str, tuple[float, float]]:
    """The lowest and the highest value of each option that is a number."""
    return {
        "num_iterations": (0, bounds.max_iterations),
        "num_video_samples": (1, bounds.max_video_samples),
        "num_value_samples": (1, bounds.max_value_samples),
        "num_flow_steps": (1, bounds.max_flow_steps),
        "num_video_steps": (1, bounds.max_video_steps),
        "smoothing": (0.0, 1.0),
        "decay": (0.0, 1.0),
        "video_elite_fraction": (0.0, 1.0),
        "value_elite_fraction": (0.0, 1.0),
        "early_stop": (0.0, 1.0),
    }


def _check_bounds(config: PlannerConfig, bounds: PlannerBounds) -> None:
    if config.mode not in MODES:
        raise InvalidRequest("planner.mode", f"one of {', '.join(MODES)}", shown(config.mode))
    for name, (low, high) in option_ranges(bounds).items():
        value = getattr(config, name)
        if not low <= value <= high:
            raise InvalidRequest(f"planner.{name}", f"{low} to {high}", value)
    if config.num_iterations == 0:
        return
    if config.num_video_samples < 2:
        expected = "at least 2 (two elites are needed)"
        raise InvalidRequest("planner.num_video_samples", expected, config.num_video_samples)
    if config.mode == "best_of_n":  # it has no refit
        return
    for name, elites in (
        ("video_elite_fraction", config.num_video_elites),
        ("value_elite_fraction", config.num_value_elites),
    ):
        if elites < 2:  # the unbiased std of one elite is NaN, which would make every action NaN
            raise InvalidRequest(f"planner.{name}", "at least 2 elites", f"{elites}")
