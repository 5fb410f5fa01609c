"""Where the hand takes an object: candidates from its collision shapes, and the one that hits least.

The hand points down. A candidate closes the fingers around the whole object, or pinches the rim of a hollow one. Knows
no controller.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from wavserve.core.errors import SimulationError
from wavserve.training.demos.scene import Scene, Vector

MAX_WIDTH_M = 0.074
"""of what the open fingers take; they are 80 mm apart"""
_EASY_WIDTH_M = 0.05
_DEPTHS_M = (0.012, 0.02, 0.03, 0.04)
"""below the top of the object"""
_MIN_HEIGHT_M = 0.010
"""of the grasp above the bottom of the object"""
_SECTION_M = 0.014
"""half the height of the slice whose width counts"""
_NEAR_M = 0.25
"""Others farther than this from the object are in nobody's way."""
_BLOCKED = 100.0
"""cost of a candidate whose fingers, or whose hand, would hit something"""
_CLOSE = 0.3
"""cost of a candidate whose hand would pass close to something"""
_YAWS = np.deg2rad(np.arange(-75, 91, 5))
_RIM_ANGLES = np.arange(24) * np.pi / 12
_RIM_OFFSETS_M = (0.0, 0.01, 0.02)
"""of the hand toward the middle of a hollow object, where its outer finger has little room"""
_LEAST_YAW = -0.8
"""rad: beyond it the wrist comes to its end. Half a turn more is the same grasp."""
_REACH_M = 0.72
"""from the arm's base to a hand that points down and touches the table, with some room"""
_DOWN = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
"""the hand's rotation at yaw 0: it points down, and the fingers close along the world's y"""


@dataclass(frozen=True, slots=True, eq=False)
class Grasp:
    """A pose of the hand around the object."""

    position: Vector
    """`[3]`: of the place between the fingers"""
    yaw: float
    """rad, about the vertical"""
    cost: float
    """lower is better; from 100 on something is in the way"""

    @property
    def rotation(self) -> Vector:
        """`[3, 3]`: of the hand."""
        cosine, sine = np.cos(self.yaw), np.sin(self.yaw)
        return np.asarray(np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]]) @ _DOWN)


def plan_grasp(scene: Scene) -> Grasp:
    """The best candidate. Raises SimulationError when the object offers none."""
    search = _Search(scene)
    candidates = list(search.around())
    if not candidates or min(each.cost for each in candidates) >= _BLOCKED:
        candidates += search.at_the_rim()
    if not candidates:
        raise SimulationError(f"no grasp of {scene.layout.object} fits the hand")
    return min(candidates, key=lambda each: each.cost)


class _Search:
    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._object = scene.object_cloud
        self._top, self._bottom = self._object[:, 2].max(), self._object[:, 2].min()

    @cached_property
    def _near(self) -> Vector:
        others = self._scene.dense_cloud(self._scene.others)
        away = np.linalg.norm(others[:, :2] - self._object[:, :2].mean(axis=0), axis=1)
        return np.asarray(others[away < _NEAR_M])

    def around(self) -> Iterator[Grasp]:
        """Fingers on both sides of the object: narrow, near its centre of mass, and with little turning."""
        centre = self._scene.object_mass_centre
        for yaw in _YAWS:
            closing, across = _axes(yaw)
            for depth in _DEPTHS_M:
                height = max(self._top - depth, self._bottom + _MIN_HEIGHT_M)
                section = self._object[np.abs(self._object[:, 2] - height) < _SECTION_M][:, :2]
                if len(section) < 4:
                    continue
                width = np.ptp(section @ closing)
                if width >= MAX_WIDTH_M:
                    continue
                place = closing * _middle(section @ closing) + across * _middle(section @ across)
                cost = (
                    self._hits(place, yaw, height)
                    + 6.0 * max(0.0, width - _EASY_WIDTH_M)
                    + 0.15 * abs(yaw)
                    + 2.0 * abs(centre[2] - height)
                    + 4.0 * np.linalg.norm(centre[:2] - place)
                )
                yield Grasp(np.append(place, height), float(yaw), float(cost))

    def at_the_rim(self) -> Iterator[Grasp]:
        """One finger inside a hollow object: near the arm, here and at the goal, and with little turning."""
        flat = self._object[:, :2]
        centre = (flat.max(axis=0) + flat.min(axis=0)) / 2.0
        base, goal = self._scene.poses.base[:2], self._scene.poses.goal[:2]
        height = self._top - 0.018
        for angle in _RIM_ANGLES:
            outwards = np.array([np.cos(angle), np.sin(angle)])
            yaw = (np.arctan2(-outwards[0], outwards[1]) - _LEAST_YAW) % np.pi + _LEAST_YAW
            _, across = _axes(yaw)
            from_centre = flat - centre
            wall = from_centre[
                (self._object[:, 2] > self._top - 0.02)
                & (np.abs(from_centre @ across) < 0.012)
                & (from_centre @ outwards > 0.01)
            ]
            if len(wall) < 3:
                continue
            for inwards in _RIM_OFFSETS_M:
                place = centre + outwards * (_middle(wall @ outwards) - inwards)
                farther = np.linalg.norm(place - base) - np.linalg.norm(centre - base)
                released_at = goal + place - centre
                beyond = max(0.0, float(np.linalg.norm(released_at - base)) - _REACH_M)
                cost = self._hits(place, yaw, height) + 0.12 * abs(yaw) + 1.2 * farther + 8.0 * beyond + 4.0 * inwards
                yield Grasp(np.append(place, height), float(yaw), float(cost))

    def _hits(self, place: Vector, yaw: float, height: float) -> float:
        """The cost of others where the open fingers, or the hand above them, would be."""
        closing, across = _axes(yaw)
        from_place = self._near[:, :2] - place
        along, aside = np.abs(from_place @ closing), np.abs(from_place @ across)
        above = self._near[:, 2] - height
        fingers = (aside < 0.016) & (along > 0.028) & (along < 0.064) & (above > -0.016)
        hand = (aside < 0.04) & (along < 0.11) & (above > 0.045)
        close = (aside < 0.06) & (along < 0.13) & (above > 0.025)
        return _BLOCKED * (float(fingers.any()) + float(hand.any())) + _CLOSE * float(close.any())


def _axes(yaw: float) -> tuple[Vector, Vector]:
    """The direction in which the fingers close, and the one across, both `[2]`."""
    return np.array([-np.sin(yaw), np.cos(yaw)]), np.array([np.cos(yaw), np.sin(yaw)])


def _middle(values: Vector) -> float:
    return float(values.max() + values.min()) / 2.0
