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


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A layout with the poses of one moment."""

    layout: Layout
    poses: Poses

    def cloud(self, names: Iterable[str]) -> Vector:
        """`[points, 3]` of the objects' collision shapes; empty for objects without any."""
        owners = [self.layout.names.index(name) for name in names if name in self.layout.names]
        shapes = np.flatnonzero(np.isin(self.layout.owners, owners))
        turned = self.layout.points[shapes] @ self.poses.shape_rotations[shapes].transpose(0, 2, 1)
        return np.asarray((turned + self.poses.shape_positions[shapes, None]).reshape(-1, 3))

    @property
    def object_cloud(self) -> Vector:
        return self.cloud([self.layout.object])

    @property
    def others_cloud(self) -> Vector:
        """Everything but the object."""
        return self.cloud(name for name in self.layout.names if name != self.layout.object)

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
