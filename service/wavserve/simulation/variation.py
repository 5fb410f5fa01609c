"""Moves the objects and the arm of an initial state, within bounds.

Knows where a state vector has an object's place. Draws from the variation's seed only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wavserve.core.errors import SimulationError
from wavserve.core.simulation import Variation
from wavserve.simulation.truth import destination, moved

_NEAR_M = 0.095
"""Objects come no nearer to each other than this; those that were nearer come no nearer than they were."""
_STACKED_M = 0.06
"""An object that stands on another one has its centre within this of the other's, seen from above."""
_MAX_DRAWS = 200
_ARM = slice(1, 8)
"""A state is the time, the positions and the velocities; the arm's joints come first."""

Vector = NDArray[np.float64]


def varied(state: Vector, control: Any, variation: Variation) -> Vector:
    """A state `[D]` near `state`. Raises SimulationError when no draw keeps the objects apart."""
    rng = np.random.default_rng(variation.seed)
    places = {name: 1 + _address(control, thing) for name, thing in control.env.objects_dict.items()}
    before = np.stack([state[at : at + 3] for at in places.values()])
    radii = np.array([_radius(name, control, variation) for name in places])
    carrier = _carriers(before)
    for _ in range(_MAX_DRAWS):
        shifts = _in_discs(rng, radii)[carrier]
        after = before[:, :2] + shifts
        if _apart(before[:, :2], after):
            break
    else:
        raise SimulationError(f"no start among {_MAX_DRAWS} keeps the objects apart; give smaller bounds")
    new = state.copy()
    for at, place in zip(places.values(), after, strict=True):
        new[at : at + 2] = place
    new[_ARM] += rng.normal(0.0, variation.joints_rad, _ARM.stop - _ARM.start)
    return new


def _address(control: Any, thing: Any) -> int:
    return int(control.sim.model.get_joint_qpos_addr(thing.joints[0])[0])


def _radius(name: str, control: Any, variation: Variation) -> float:
    if name in _enclosed(control):
        return 0.0
    if name == moved(control)[1]:
        return variation.object_m
    return variation.destination_m if name == destination(control) else variation.others_m


def _enclosed(control: Any) -> set[str]:
    """Objects that begin inside something, such as a drawer."""
    return {each[1] for each in control.env.parsed_problem["initial_state"] if each[0].lower() == "in"}


def _carriers(places: Vector) -> NDArray[np.int64]:
    """`[N]`: for each object the lowest one that is under it, or itself."""
    flat = np.linalg.norm(places[:, None, :2] - places[None, :, :2], axis=-1)
    heights = np.where(flat < _STACKED_M, places[None, :, 2], np.inf)
    return np.asarray(np.argmin(heights, axis=1))


def _in_discs(rng: np.random.Generator, radii: Vector) -> Vector:
    """`[N, 2]`, each uniform in a disc."""
    angles = rng.uniform(0.0, 2.0 * np.pi, len(radii))
    lengths = radii * np.sqrt(rng.uniform(0.0, 1.0, len(radii)))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * lengths[:, None]


def _apart(before: Vector, after: Vector) -> bool:
    pairs = np.triu_indices(len(before), 1)
    old, new = (np.linalg.norm(each[pairs[0]] - each[pairs[1]], axis=1) for each in (before, after))
    return bool((new >= np.minimum(_NEAR_M, old) - 1e-9).all())
