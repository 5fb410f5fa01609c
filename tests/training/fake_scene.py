"""A scene without a simulator: a hand that does what it is told, a box to pick up, another one, and a basket.

No physics: a closed hand holds what is between its fingers, and what nobody holds falls. An episode depends on its
start and on its commands only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wavserve.core.errors import InvalidRequest, SimulationDiverged, SimulatorDied
from wavserve.core.resize import Pixels
from wavserve.core.simulation import Layout, Poses, Start, TaskInfo

Vector = NDArray[np.float64]

SUITE = "fake_pick"
TASKS = tuple(
    TaskInfo(SUITE, index, f"pick_{colour}", f"pick up the {colour} box", num_states=4, max_steps=200)
    for index, colour in enumerate(("red", "blue"))
)
STEP_M = 0.012
"""what a full command moves"""
TURN_RAD = 0.1
HALF = np.array([0.02, 0.02, 0.04])
"""half the size of a box"""
BASKET_M, WALL_M, RIM_M = 0.09, 0.005, 0.08
"""half the width of the basket, half the thickness of its walls, its height"""
_HOME = np.array([-0.1, 0.0, 0.25])
_DOWN = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])


class FakeScene:
    """`slips_at`: the step of an episode at which the hand loses what it holds. `dies_at`: the call of `step`, over all
    episodes, at which the simulator dies. `diverges_at`: the step of an episode at which the physics break."""

    def __init__(
        self, size: int = 32, slips_at: int | None = None, dies_at: int | None = None, diverges_at: int | None = None
    ) -> None:
        self.size = size
        self.slips_at, self.dies_at, self.diverges_at = slips_at, dies_at, diverges_at
        self.starts: list[Start] = []
        """of every `reset`"""
        self.num_renders = 0
        self.num_calls = 0
        """of `step`"""
        self.closed = False

    def tasks(self, suite: str) -> tuple[TaskInfo, ...]:
        if suite != SUITE:
            raise InvalidRequest("suite", SUITE, repr(suite))
        return TASKS

    def reset(self, start: Start) -> TaskInfo:
        self.starts.append(start)
        self.num_steps = 0
        rng = np.random.default_rng([start.task, start.state_index, start.seed])
        shifts = np.zeros((3, 2))
        if (variation := start.variation) is not None:
            bounds = np.array([variation.object_m, variation.others_m, variation.destination_m])
            shifts = np.random.default_rng(variation.seed).uniform(-0.7, 0.7, (3, 2)) * bounds[:, None]
        sideways = 0.08 * start.task + 0.005 * start.state_index
        self.hand, self.turn = _HOME + rng.normal(0.0, 0.002, 3), _DOWN.copy()
        self.object = np.array([0.05 + shifts[0, 0], -0.1 + sideways + shifts[0, 1], HALF[2]])
        self.other = np.array([0.2 + shifts[1, 0], -0.15 + shifts[1, 1], HALF[2]])
        self.basket = np.array([0.0 + shifts[2, 0], 0.25 + shifts[2, 1]])
        self.fingers, self.held = 0.04, False
        return TASKS[start.task]

    def step(self, action: NDArray[np.floating[Any]]) -> bool:
        assert action.shape == (7,)
        if self.num_calls == self.dies_at:
            raise SimulatorDied("the simulator's process ended with code -9")
        self.num_calls += 1
        if self.num_steps == self.diverges_at:
            raise SimulationDiverged("the simulation diverged")
        self.num_steps += 1
        command = np.clip(np.asarray(action, np.float64), -1.0, 1.0)
        move = STEP_M * command[:3]
        self.hand = self.hand + move
        self.turn = rotation(TURN_RAD * command[3:6]) @ self.turn
        self.fingers = float(np.clip(self.fingers + (0.01 if command[6] < 0 else -0.01), 0.0, 0.04))
        reached = np.abs(self.hand - self.object)
        between = bool((reached[:2] < 0.015).all() and reached[2] < HALF[2])
        self.held = self.fingers <= 0.02 and (self.held or between) and self.num_steps != self.slips_at
        if self.held:
            self.object = self.object + move
        else:
            self.object[2] = max(HALF[2], self.object[2] - 0.03)
        return self.solved

    @property
    def solved(self) -> bool:
        return bool((np.abs(self.object[:2] - self.basket) < BASKET_M - 0.02).all() and self.object[2] < RIM_M)

    def images(self) -> dict[str, Pixels]:
        self.num_renders += 1
        return {"agentview": self._drawn(np.zeros(2)), "wrist": self._drawn(self.hand[:2])}

    def projections(self) -> dict[str, Vector]:
        return {}

    def state(self) -> Vector:
        return np.concatenate([self.hand, [np.pi, 0.0, 0.0], [self.fingers, -self.fingers]])

    def sim_state(self) -> Vector:
        return np.concatenate([[self.num_steps], self.hand, self.object, [self.fingers, self.held]])

    def restore(self, sim_state: Vector) -> None:
        raise AssertionError("no episode is shown again")

    def versions(self) -> dict[str, str]:
        return {"simulator": "fake 1", "renderer": "fake"}

    def close(self) -> None:
        self.closed = True

    def layout(self) -> Layout:
        boxes = np.stack([np.stack([np.zeros(3), size]) for _, size in self._boxes()])
        owners = np.array([0, 1, 2, 2, 2, 2, 2])
        return Layout("in", "box", "basket", ("box", "other", "basket"), owners, boxes)

    def poses(self) -> Poses:
        places = np.array([place for place, _ in self._boxes()])
        bodies = np.array([self.object, self.other, [*self.basket, 0.0]])
        goal = np.array([*self.basket, HALF[2]])
        turns = np.tile(np.eye(3), (len(places), 1, 1))
        base = np.array([-0.6, 0.0, 0.0])
        return Poses(places, turns, bodies, bodies.copy(), goal, self.hand.copy(), self.turn.copy(), base)

    def _boxes(self) -> list[tuple[Vector, Vector]]:
        """Centre and half size of each shape: two boxes, the basket's walls and its floor."""
        x, y = self.basket
        middle = RIM_M / 2.0
        walls = [(x - BASKET_M, y), (x + BASKET_M, y), (x, y - BASKET_M), (x, y + BASKET_M)]
        thick, long = WALL_M, BASKET_M
        sizes = [(thick, long, middle), (thick, long, middle), (long, thick, middle), (long, thick, middle)]
        boxes = [(self.object, HALF), (self.other, HALF)]
        boxes += [(np.array([*at, middle]), np.array(size)) for at, size in zip(walls, sizes, strict=True)]
        return [*boxes, (np.array([x, y, 0.0]), np.array([long, long, 0.001]))]

    def _drawn(self, origin: Vector) -> Pixels:
        """From above: the robot is white, the box red, the basket green; brighter to the bottom right."""
        rows, columns = np.mgrid[: self.size, : self.size]
        picture = np.repeat((60 + rows + columns)[:, :, None], 3, axis=2).astype(np.uint8)
        marks = ((self.basket, (0, 160, 0)), (self.object[:2], (255, 0, 0)), (self.hand[:2], (255, 255, 255)))
        for place, colour in marks:
            row, column = np.clip((place - origin + 0.5) * self.size, 0, self.size - 3).astype(int)
            picture[row : row + 3, column : column + 3] = colour
        return picture


def rotation(vector: Vector) -> Vector:
    """The matrix of an axis times an angle (Rodrigues)."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * cross @ cross)
