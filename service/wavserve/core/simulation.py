"""What a simulated robot task is, whatever the simulator: tasks, starts of episodes, and an environment's methods.

Data and a protocol only. Knows no simulator, no policy and no network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

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


OpenEnvironment = Callable[[], Environment]
"""Opens one more environment of the same configuration."""
