"""What the simulator knows of a scene: the task's object and destination, collision shapes, poses.

Reads the physics engine's arrays, and changes nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wavserve.core.errors import SimulationError
from wavserve.core.simulation import Layout, Poses

_RELATIONS = ("in", "on")


class SceneTruth:
    """The truth of one scene. `control`: LIBERO's environment, which must not be built anew."""

    def __init__(self, control: Any) -> None:
        """Raises SimulationError for a task that does not move one object to one place."""
        self._scene, self._sim = control.env, control.sim
        relation, self._object, self._place = moved(control)
        shapes = self._shapes()
        owners = [list(shapes).index(name) for name, parts in shapes.items() for _ in parts]
        self._geoms = np.array([geom for parts in shapes.values() for geom in parts])
        self._bodies = np.array([self._scene.obj_body_id[name] for name in shapes])
        gripper = self._scene.robots[0].gripper
        self._hand = self._sim.model.site_name2id(gripper.important_sites["grip_site"])
        self._base = self._sim.model.body_name2id("robot0_base")
        self.layout = Layout(
            relation=relation,
            object=self._object,
            destination=destination(control),
            names=tuple(shapes),
            owners=np.array(owners, np.int64),
            boxes=self._sim.model._model.geom_aabb[self._geoms].reshape(-1, 2, 3),
        )

    def poses(self) -> Poses:
        data = self._sim.data._data
        return Poses(
            shape_positions=data.geom_xpos[self._geoms],
            shape_rotations=data.geom_xmat[self._geoms].reshape(-1, 3, 3),
            positions=data.xpos[self._bodies],
            mass_centres=data.xipos[self._bodies],
            goal=self._goal(),
            hand=data.site_xpos[self._hand].copy(),
            hand_rotation=data.site_xmat[self._hand].reshape(3, 3).copy(),
            base=data.xpos[self._base].copy(),
        )

    def _goal(self) -> NDArray[np.float64]:
        data = self._sim.data._data
        if self._place in self._scene.object_sites_dict:
            return np.array(data.site_xpos[self._sim.model.site_name2id(self._place)])
        return np.array(data.xpos[self._scene.obj_body_id[self._place]])

    def _shapes(self) -> dict[str, list[int]]:
        """The collision shapes of each object and fixture that has some."""
        model = self._sim.model._model
        shapes: dict[str, list[int]] = {}
        for name in (*self._scene.objects_dict, *self._scene.fixtures_dict):
            if name not in self._scene.obj_body_id:
                continue
            bodies = _with_children(model, self._scene.obj_body_id[name])
            parts = [
                geom
                for geom in range(model.ngeom)
                if model.geom_bodyid[geom] in bodies and (model.geom_contype[geom] or model.geom_conaffinity[geom])
            ]
            if parts:
                shapes[name] = parts
        return shapes


def moved(control: Any) -> tuple[str, str, str]:
    """The relation, the object and the place of a task that moves one object. Raises SimulationError."""
    goals = [goal for goal in control.env.parsed_problem["goal_state"] if goal[0].lower() in _RELATIONS]
    if len(goals) != 1:
        raise SimulationError(f"expected a task that moves one object, got {len(goals)} goals of that kind")
    relation, thing, place = goals[0]
    return relation.lower(), thing, place


def destination(control: Any) -> str:
    """The object or fixture that a task's place belongs to."""
    place = moved(control)[2]
    sites = control.env.object_sites_dict
    return str(control.env.object_states_dict[place].parent_name if place in sites else place)


def _with_children(model: Any, body: int) -> set[int]:
    """A body and all below it. A body's parent has a smaller number than the body."""
    family = {body}
    for each in range(body + 1, model.nbody):
        if model.body_parentid[each] in family:
            family.add(each)
    return family
