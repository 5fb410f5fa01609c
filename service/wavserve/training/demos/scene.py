"""A scene as the expert sees it: point clouds of objects and the hand, at one moment.

Geometry only, in m, in the frame of the world, whose z points up. Knows no simulator.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wavserve.core.simulation import Layout, Poses

Vector = NDArray[np.float64]

_SIDE = np.linspace(-1.0, 1.0, 4)
_GRID = np.stack(np.meshgrid(_SIDE, _SIDE, _SIDE, indexing="ij"), axis=-1).reshape(-1, 3)
_SPACING_M = 0.015
"""A finger is 32 mm wide."""


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A layout with the poses of one moment."""

    layout: Layout
    poses: Poses

    def cloud(self, names: Iterable[str]) -> Vector:
        """`[points, 3]`: a coarse grid over the boxes of the objects' collision shapes; empty for objects without."""
        shapes = self._shapes(names)
        return self._placed(shapes, self.layout.boxes[shapes, None, 0] + _GRID * self.layout.boxes[shapes, None, 1])

    def dense_cloud(self, names: Iterable[str]) -> Vector:
        """`[points, 3]`: a grid that leaves no hole a finger would fit through."""
        parts = [np.zeros((0, 3))]
        for shape in self._shapes(names):
            centre, half = self.layout.boxes[shape]
            sides = [np.linspace(-side, side, int(np.ceil(2.0 * side / _SPACING_M)) + 1) for side in half]
            points = centre + np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1).reshape(-1, 3)
            parts.append(self._placed(np.array([shape]), points[None]))
        return np.concatenate(parts)

    def _shapes(self, names: Iterable[str]) -> NDArray[np.int64]:
        owners = [self.layout.names.index(name) for name in names if name in self.layout.names]
        return np.flatnonzero(np.isin(self.layout.owners, owners))

    def _placed(self, shapes: NDArray[np.int64], points: Vector) -> Vector:
        """Points `[shapes, N, 3]` of shapes' own frames, in the world: `[shapes N, 3]`."""
        turned = points @ self.poses.shape_rotations[shapes].transpose(0, 2, 1)
        return np.asarray((turned + self.poses.shape_positions[shapes, None]).reshape(-1, 3))

    @property
    def object_cloud(self) -> Vector:
        return self.cloud([self.layout.object])

    @property
    def others(self) -> list[str]:
        """Everything but the object."""
        return [name for name in self.layout.names if name != self.layout.object]

    @property
    def object_position(self) -> Vector:
        return np.asarray(self.poses.positions[self.layout.names.index(self.layout.object)])

    @property
    def object_mass_centre(self) -> Vector:
        return np.asarray(self.poses.mass_centres[self.layout.names.index(self.layout.object)])

    @property
    def rim(self) -> float:
        """The height that a carried object must clear at its destination."""
        cloud = self.cloud([self.layout.destination])
        return float(cloud[:, 2].max()) if len(cloud) else float(self.poses.goal[2])


def rotation_vector(rotation: Vector) -> Vector:
    """`[3]`: axis times angle in rad of a rotation matrix that turns by less than half a turn."""
    axis = np.array(
        [
            rotation[2, 1] - rotation[1, 2],
            rotation[0, 2] - rotation[2, 0],
            rotation[1, 0] - rotation[0, 1],
        ]
    )
    sine = np.linalg.norm(axis) / 2.0
    angle = np.arctan2(sine, (np.trace(rotation) - 1.0) / 2.0)
    return np.asarray(axis / 2.0 if sine < 1e-9 else axis / (2.0 * sine) * angle)
