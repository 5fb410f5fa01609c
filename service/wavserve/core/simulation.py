"""What a simulated robot task is, whatever the simulator: tasks, starts of episodes, and an environment's methods.

Knows no simulator, no policy and no network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from wavserve.core.resize import Pixels


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """One task of a suite."""

    suite: str
    index: int
    """in the suite, from 0"""
    name: str
    """the suite's own name of the task"""
    instruction: str
    num_states: int
    """shipped initial states"""
    max_steps: int
    """control steps of an episode in the literature's protocol, settling steps not counted"""


@dataclass(frozen=True, slots=True)
class Variation:
    """Moves an initial state. `seed` fixes what is drawn within these bounds; how near objects may come stays as it is.

    Objects move on their support, each within a disc. An object that stands on another one moves with it, and one that
    begins inside something, such as a drawer, stays.
    """

    seed: int
    object_m: float = 0.03
    """radius of the disc of the object that the task moves"""
    others_m: float = 0.03
    """of objects that the task does not name"""
    destination_m: float = 0.015
    """of the object that the task ends at"""
    joints_rad: float = 0.01
    """standard deviation of each joint of the arm"""


@dataclass(frozen=True, slots=True)
class Start:
    """Where an episode begins. Two environments of one version that begin at equal starts and get equal actions have
    bit-equal states and images, whatever either of them did before."""

    suite: str
    task: int
    """index in the suite"""
    state_index: int
    """of the shipped initial states"""
    seed: int
    """of what the initial state does not hold, such as the poses of fixtures"""
    variation: Variation | None = None
    """None: the initial state as it was shipped"""


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """What a simulator knows of a scene and no camera tells, as far as no step changes it."""

    relation: str
    """`in` or `on`: the object must go into, or onto, the destination"""
    object: str
    destination: str
    """that it is in or on: an object or a fixture"""
    names: tuple[str, ...]
    """of the objects and fixtures that can be hit"""
    owners: NDArray[np.int64]
    """`[G]`: whose part each collision shape is, as an index into `names`"""
    boxes: NDArray[np.float64]
    """`[G, 2, 3]`: centre and half size of the box around each shape, in the frame of the shape, in m"""


@dataclass(frozen=True, slots=True, eq=False)
class Poses:
    """Where everything is now, in m, in the frame of the world."""

    shape_positions: NDArray[np.float64]
    """`[G, 3]`"""
    shape_rotations: NDArray[np.float64]
    """`[G, 3, 3]`"""
    positions: NDArray[np.float64]
    """`[names, 3]`: of each object's own frame"""
    mass_centres: NDArray[np.float64]
    """`[names, 3]`"""
    goal: NDArray[np.float64]
    """`[3]`: the place within the destination"""
    hand: NDArray[np.float64]
    """`[3]`: between the fingers"""
    hand_rotation: NDArray[np.float64]
    """`[3, 3]`: the fingers close along its x, and it points along its z"""
    base: NDArray[np.float64]
    """`[3]`: of the arm"""


class Environment(Protocol):
    """One simulated robot in one scene. Every method may raise SimulationError.

    `reset` comes before every method but `tasks`, `versions` and `close`. Not for several threads at once.
    """

    def tasks(self, suite: str) -> tuple[TaskInfo, ...]:
        """The tasks of a suite, in order. Raises InvalidRequest for an unknown suite."""
        ...

    def reset(self, start: Start) -> TaskInfo:
        """Begins an episode, without settling steps. Raises InvalidRequest for a start that does not exist."""
        ...

    def step(self, action: NDArray[np.floating[Any]]) -> bool:
        """One control step of 50 ms, without rendering. `action`: `[A]`. Returns whether the task is solved."""
        ...

    def images(self) -> dict[str, Pixels]:
        """What the cameras see now, by camera, as captured: not turned. Rendered at each call."""
        ...

    def projections(self) -> dict[str, NDArray[np.float64]]:
        """`[3, 4]` by camera, now: takes a point of the world `(x, y, z, 1)`, in m, to `(column w, row w, w)` of its
        picture. A camera sees points with w > 0."""
        ...

    def state(self) -> NDArray[np.float64]:
        """`[S]`: the robot's state now, in the order and the units of the suite's policies."""
        ...

    def sim_state(self) -> NDArray[np.float64]:
        """`[D]`: the simulator's state now. `restore` takes it. D differs between tasks."""
        ...

    def restore(self, sim_state: NDArray[np.float64]) -> None:
        """Shows a recorded state of the episode that `reset` began: `images` and `state` then tell of it.

        For pictures only: the episode must not be stepped on from here.
        """
        ...

    def versions(self) -> dict[str, str]:
        """What the numbers of an episode depend on besides its start: the simulator's packages and the renderer."""
        ...

    def close(self) -> None:
        """Ends the environment. May be called twice."""
        ...


@runtime_checkable
class PrivilegedEnvironment(Environment, Protocol):
    """An environment that tells what no policy may see: for scripted experts and rewards."""

    def layout(self) -> Layout:
        """Of the present scene. Raises SimulationError for a task that does not move one object to one place."""
        ...

    def poses(self) -> Poses:
        """Now. The shapes and names are those of `layout`, in its order."""
        ...


OpenEnvironment = Callable[[], Environment]
"""Opens one more environment of the same configuration."""
_E = TypeVar("_E", bound=Environment)


def first_reused(first: _E, open_environment: Callable[[], _E]) -> Callable[[], _E]:
    """Opens environments, of which the first one is open already."""
    ready = [first]

    def take() -> _E:
        try:
            return ready.pop()
        except IndexError:
            return open_environment()

    return take
