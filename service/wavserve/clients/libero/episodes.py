"""The episodes of a run, in their order, and the record of one that has ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from wavserve.clients.libero.cells import Cell
from wavserve.clients.libero.records import EpisodeKey, RunConfig
from wavserve.core.errors import InvalidRequest
from wavserve.core.simulation import Start, TaskInfo


@dataclass(frozen=True, slots=True)
class Episode:
    """One episode to run."""

    cell: Cell
    task: TaskInfo
    state_index: int
    seed: int
    """of the scene and of the plans; the same in every cell"""

    @property
    def key(self) -> EpisodeKey:
        return EpisodeKey(self.cell.name, self.task.suite, self.task.index, self.state_index)

    @property
    def start(self) -> Start:
        return Start(self.task.suite, self.task.index, self.state_index, self.seed)


def chosen_tasks(suites: Mapping[str, tuple[TaskInfo, ...]], config: RunConfig) -> list[TaskInfo]:
    """The tasks of a run, suite by suite. Raises InvalidRequest for a task or an initial state that does not exist."""
    chosen = []
    for suite in config.suites:
        tasks = suites[suite]
        for index in config.tasks or range(len(tasks)):
            if not 0 <= index < len(tasks):
                raise InvalidRequest("--tasks", f"0 to {len(tasks) - 1}, the tasks of {suite}", index)
            chosen.append(tasks[index])
    last = config.first_state + config.num_trials_per_task
    for task in chosen:
        if last > task.num_states:
            expected = f"at most {task.num_states} with --first-state, the initial states of {task.suite} {task.index}"
            raise InvalidRequest("--num-trials-per-task", expected, last)
    return chosen


def episodes_of(config: RunConfig, tasks: Iterable[TaskInfo]) -> list[Episode]:
    """Every episode of a run. Those of one task follow each other, because another task makes a new scene."""
    states = range(config.first_state, config.first_state + config.num_trials_per_task)
    return [
        Episode(cell, task, state_index, config.seed + state_index)
        for task in tasks
        for state_index in states
        for cell in config.cells
    ]
