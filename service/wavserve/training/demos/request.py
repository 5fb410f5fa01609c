"""What to generate: the episodes of a data set in their order, and the recipe that all of them share.

Knows no simulator that runs, and no files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from wavserve.core.errors import InvalidRequest
from wavserve.core.jpeg import JPEG_QUALITY
from wavserve.core.simulation import PrivilegedEnvironment, TaskInfo, Variation
from wavserve.training.dataset_format import DatasetRecipe, TaskEntry
from wavserve.training.demos.expert import VERSION
from wavserve.training.demos.protocol import RecordingConfig
from wavserve.training.demos.reward import DISCOUNT, WEIGHTS

IN_A_ROW = 5
"""episodes of one task: another task means a new scene, which takes seconds. A few of these make a usable data set."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to generate."""

    suite: str
    tasks: tuple[int, ...]
    """indices in the suite; empty: all"""
    num_episodes: int
    """of each task"""
    seed: int
    antialiasing: bool
    config: RecordingConfig
    policy: str = ""
    """name and digest of the policy that acts first; empty: the expert alone"""


@dataclass(frozen=True, slots=True)
class Assignment:
    """One episode to record."""

    task: TaskInfo
    number: int

    @property
    def block(self) -> tuple[int, int]:
        """Equal for the episodes that one simulator records in a row."""
        return self.task.index, self.number // IN_A_ROW


def recipe_of(request: Request, tasks: Sequence[TaskInfo], versions: Mapping[str, str]) -> DatasetRecipe:
    """What makes two data sets equal."""
    config = request.config
    settings = {
        **_flat("variation", asdict(Variation(seed=0))),
        **_flat("recording", asdict(config)),
        **_flat("reward", WEIGHTS),
        "reward.discount": DISCOUNT,
        "expert": VERSION,
        "policy": request.policy,
    }
    del settings["variation.seed"]
    return DatasetRecipe(
        suite=request.suite,
        tasks=tuple(TaskEntry(task.index, task.instruction) for task in tasks),
        seed=request.seed,
        size=config.size,
        antialiasing=request.antialiasing,
        picture_every=config.picture_every,
        jpeg_quality=JPEG_QUALITY,
        reward_terms=tuple(WEIGHTS),
        settings=settings,
        versions=dict(versions),
    )


def chosen_tasks(environment: PrivilegedEnvironment, request: Request) -> list[TaskInfo]:
    """Raises InvalidRequest for a suite or a task that does not exist."""
    tasks = environment.tasks(request.suite)
    for index in request.tasks:
        if not 0 <= index < len(tasks):
            raise InvalidRequest("--tasks", f"0 to {len(tasks) - 1}, the tasks of {request.suite}", index)
    return [tasks[index] for index in sorted(set(request.tasks)) or range(len(tasks))]


def assignments(tasks: Sequence[TaskInfo], num_episodes: int) -> list[Assignment]:
    """All episodes in their order: a few of each task, then a few more of each."""
    return [
        Assignment(task, number)
        for first in range(0, num_episodes, IN_A_ROW)
        for task in tasks
        for number in range(first, min(first + IN_A_ROW, num_episodes))
    ]


def _flat(path: str, table: Mapping[str, object]) -> dict[str, float | str]:
    """Dotted names of all values, as JSON has them."""
    flat: dict[str, float | str] = {}
    for key, value in table.items():
        name = f"{path}.{key}"
        if isinstance(value, Mapping):
            flat |= _flat(name, value)
        elif isinstance(value, tuple):
            flat[name] = " to ".join(str(each) for each in value)
        else:
            flat[name] = value if isinstance(value, int | float | str) else str(value)
    return flat
