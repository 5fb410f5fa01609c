"""A scripted expert for tasks that move one object: it hovers, descends, closes, lifts, carries, lowers and releases.

It sees the simulator's truth, and its commands are a policy's. It plans anew when the object slips. It has no
randomness, and knows no simulator.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from wavserve.core.simulation import Layout, Poses
from wavserve.training.demos.grasp import plan_grasp
from wavserve.training.demos.scene import Scene, Vector, rotation_vector

VERSION = 3
"""A data set is of one version: it changes whenever the expert, in some scene, commands something else."""
OPEN, CLOSED = -1.0, 1.0
_GAIN = 16.0
"""command per m of error; a command of 1 aims 5 cm away"""
_TURN_GAIN = 4.0
"""command per rad"""
_MAX_RETRIES = 3
_FAR_M = 0.70
"""from the arm's base"""


class Phase(IntEnum):
    HOVER = 0
    DESCEND = 1
    CLOSE = 2
    LIFT = 3
    CARRY = 4
    LOWER = 5
    RELEASE = 6
    RETREAT = 7


class Expert:
    """Solves one episode from where it stands. `act` is called once a control step."""

    def __init__(self, layout: Layout, poses: Poses) -> None:
        """Raises SimulationError when the object offers no grasp."""
        self._layout = layout
        self._num_retries = 0
        scene = Scene(layout, poses)
        self._begin(scene)
        if self._is_over_the_grasp(scene):
            self._go_on(Phase.DESCEND)

    @property
    def phase(self) -> Phase:
        """Of the next command."""
        return self._phase

    def act(self, poses: Poses) -> Vector:
        """`[7]`: the command of this control step."""
        scene = Scene(self._layout, poses)
        self._step += 1
        command = _ACTIONS[self._phase](self, scene)
        return np.asarray(command)

    def _begin(self, scene: Scene) -> None:
        """Plans a grasp, and starts at the top."""
        self._grasp = plan_grasp(scene)
        cloud = scene.object_cloud
        others = scene.cloud(scene.others)
        self._bottom = cloud[:, 2].min()
        self._clear_height = max(others[:, 2].max(), cloud[:, 2].max()) + 0.06
        self._integral = np.zeros(3)
        self._lifted_at = self._carry_height = 0.0
        self._above_release = np.zeros(3)
        self._go_on(Phase.HOVER)

    def _is_over_the_grasp(self, scene: Scene) -> bool:
        """Whether the hand needs not hover first, as where a policy stopped at the object.

        A picture does not show how the hand came there. If the expert went up again here, where other demonstrations
        close the hand, a policy would learn both.
        """
        aside, _, turned = self._errors(scene, self._grasp.position)
        above = scene.poses.hand[2] - self._grasp.position[2]
        return aside < 0.015 and turned < 0.15 and above < 0.14

    def _go_on(self, phase: Phase) -> None:
        self._phase, self._step = phase, 0

    def _hover(self, scene: Scene) -> Vector:
        place, height = self._grasp.position[:2], self._grasp.position[2]
        above = max(height + 0.10, min(scene.poses.hand[2], height + 0.14))
        aim = np.append(place, above)
        aside, away, turned = self._errors(scene, aim)
        if (aside < 0.012 and away < 0.03 and turned < 0.08) or self._step > 80:
            command = self._drive(scene, aim, OPEN)
            self._go_on(Phase.DESCEND)
            return command
        return self._drive(scene, aim, OPEN)

    def _descend(self, scene: Scene) -> Vector:
        aim = self._grasp.position
        aside, away, _ = self._errors(scene, aim)
        command = self._drive(scene, aim, OPEN, speed=0.8)
        if aside > 0.012:
            command[2] = max(command[2], -0.1)
        if (aside < 0.006 and away < 0.006) or self._step > 45:
            self._go_on(Phase.CLOSE)
        return command

    def _close(self, scene: Scene) -> Vector:
        command = self._drive(scene, self._grasp.position, CLOSED)
        if self._step >= 10:
            self._lift_from = scene.poses.hand.copy()
            self._go_on(Phase.LIFT)
        return command

    def _lift(self, scene: Scene) -> Vector:
        hanging = scene.poses.hand[2] - scene.object_cloud[:, 2].min()
        rim = scene.rim
        if self._layout.relation == "in":
            height = max(min(self._clear_height, rim + 0.16), rim + 0.035) + hanging
        else:
            height = max(rim, self._bottom) + 0.07 + hanging
        self._carry_height = max(height, self._lift_from[2] + 0.06)
        aim = np.append(self._lift_from[:2], self._carry_height)
        _, away, _ = self._errors(scene, aim)
        command = self._drive(scene, aim, CLOSED)
        if away < 0.03 or self._step > 50:
            self._go_on(Phase.CARRY)
        self._retry_if_lost(scene)
        return command

    def _carry(self, scene: Scene) -> Vector:
        aim = np.append(self._over_goal(scene), self._carry_height)
        aside, _, _ = self._errors(scene, aim)
        command = self._drive(scene, aim, CLOSED)
        if aside < 0.012 or self._step > 90:
            self._go_on(Phase.LOWER)
        self._retry_if_lost(scene)
        return command

    def _lower(self, scene: Scene) -> Vector:
        bottom = scene.object_cloud[:, 2].min()
        floor = scene.rim - 0.03 if self._layout.relation == "in" else scene.poses.goal[2] + 0.012
        aim = np.append(self._over_goal(scene), scene.poses.hand[2] - (bottom - floor))
        _, away, _ = self._errors(scene, aim)
        command = self._drive(scene, aim, CLOSED, speed=0.6)
        if away < 0.010 or self._step > 40:
            self._go_on(Phase.RELEASE)
        return command

    def _release(self, scene: Scene) -> Vector:
        command = self._drive(scene, scene.poses.hand, OPEN)
        command[:3] = 0.0
        if self._step >= 8:
            self._above_release = scene.poses.hand + np.array([0.0, 0.0, 0.12])
            self._go_on(Phase.RETREAT)
        return command

    def _retreat(self, scene: Scene) -> Vector:
        """Moves up; when the task is still not solved then, tries again."""
        command = self._drive(scene, self._above_release, OPEN)
        if self._step > 12 and self._num_retries < _MAX_RETRIES:
            self._retry(scene)
        return command

    def _over_goal(self, scene: Scene) -> Vector:
        """`[2]`: where the hand is when the object, as it hangs, is over the goal."""
        offset = scene.object_position[:2] - scene.poses.hand[:2]
        return np.asarray(scene.poses.goal[:2] - offset)

    def _retry_if_lost(self, scene: Scene) -> None:
        """Begins anew when the object is no longer between the fingers."""
        away = np.linalg.norm(scene.object_cloud - scene.poses.hand, axis=1).min()
        if self._step > 4 and away > 0.045:
            self._retry(scene)

    def _retry(self, scene: Scene) -> None:
        self._num_retries += 1
        self._begin(scene)

    def _errors(self, scene: Scene, aim: Vector) -> tuple[float, float, float]:
        """How far the hand is from an aim: aside and in height, in m, and turned, in rad."""
        error = aim - scene.poses.hand
        return float(np.linalg.norm(error[:2])), abs(float(error[2])), float(np.linalg.norm(self._turn(scene)))

    def _turn(self, scene: Scene) -> Vector:
        return rotation_vector(self._grasp.rotation @ scene.poses.hand_rotation.T)

    def _care(self, scene: Scene, aim: Vector, tilt: float) -> float:
        """A factor on the speed: a hand that tilts on its way to a far place stretches the arm, which then sticks."""
        if np.linalg.norm(aim[:2] - scene.poses.base[:2]) < _FAR_M:
            return 1.0
        return float(np.clip(1.0 - 4.0 * (tilt - 0.05), 0.3, 1.0))

    def _drive(self, scene: Scene, aim: Vector, gripper: float, speed: float = 1.0) -> Vector:
        """`[7]`: toward an aim, with an integral part near it, because the arm stops short of its set point."""
        error = aim - scene.poses.hand
        if self._step <= 1:
            self._integral = np.zeros(3)
        self._integral = np.clip(np.where(np.abs(error) < 0.02, self._integral + 2.0 * error, 0.0), -0.4, 0.4)
        turn = self._turn(scene)
        speed *= self._care(scene, aim, float(np.linalg.norm(turn[:2])))
        move = np.clip(_GAIN * error + self._integral, -speed, speed)
        turn = np.clip(_TURN_GAIN * turn, -0.5, 0.5)
        return np.concatenate([move, turn, [gripper]])


_ACTIONS = {
    Phase.HOVER: Expert._hover,
    Phase.DESCEND: Expert._descend,
    Phase.CLOSE: Expert._close,
    Phase.LIFT: Expert._lift,
    Phase.CARRY: Expert._carry,
    Phase.LOWER: Expert._lower,
    Phase.RELEASE: Expert._release,
    Phase.RETREAT: Expert._retreat,
}
