"""What a data set contains, by task; and a drawing of the reward of a success and a failure.

Knows neither training nor the simulator.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wavserve.core.errors import BundleError, InvalidRequest
from wavserve.training.dataset import Dataset
from wavserve.training.dataset_format import FPS, data_file
from wavserve.training.episode import Episode, EpisodeInfo, Kind

KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class TaskSummary:
    """The episodes of one task, or of all."""

    task: str
    num_episodes: int
    kinds: tuple[int, ...]
    """episodes of each kind, in the order of KINDS"""
    success: float
    """share"""
    mean_steps: float
    """of the successes; 0 without any"""
    mean_bytes: float
    """of an episode's file"""


def summaries(dataset: Dataset) -> list[TaskSummary]:
    """Of each task that has episodes, and of all. Raises BundleError for a file that is missing."""
    indices = range(len(dataset))
    tasks = [
        (f"{task.index} {task.instruction}", [i for i in indices if dataset.infos[i].task == task.index])
        for task in dataset.recipe.tasks
    ]
    return [_summary(dataset, task, chosen) for task, chosen in [*tasks, ("all", list(indices))] if chosen]


def draw_reward(dataset: Dataset, file: Path) -> tuple[int, int]:
    """Draws the weighted terms, the reward and the return over a success and a failure, as PNG: of the first task that
    has both, where there is one.

    Returns the two episodes. Raises InvalidRequest when the data set lacks one of them, and for a file that cannot be
    written.
    """
    chosen = _contrast(dataset.infos)
    figure = Figure(figsize=(11, 7), layout="constrained")
    rows = figure.subplots(2, 2, sharex="col", sharey="row")
    for column, index in enumerate(chosen):
        episode = dataset.read(index, pictures=False)
        _draw_terms(rows[0][column], dataset, episode)
        _draw_return(rows[1][column], episode)
        outcome = "success" if episode.info.success else "failure"
        rows[0][column].set_title(f"episode {index}, {outcome}: {episode.info.instruction}", fontsize=9)
    rows[0][0].legend(fontsize=8)
    rows[1][0].legend(fontsize=8)
    try:
        figure.savefig(file, format="png", dpi=110)
    except OSError as error:
        raise InvalidRequest("--plot", "a file that can be written", error) from error
    return chosen


def _summary(dataset: Dataset, task: str, chosen: list[int]) -> TaskSummary:
    infos = [dataset.infos[index] for index in chosen]
    kinds = Counter(info.kind for info in infos)
    steps = [info.num_steps for info in infos if info.success]
    return TaskSummary(
        task=task,
        num_episodes=len(infos),
        kinds=tuple(kinds[kind] for kind in KINDS),
        success=sum(info.success for info in infos) / len(infos),
        mean_steps=float(np.mean(steps)) if steps else 0.0,
        mean_bytes=float(np.mean([_size(data_file(dataset.folder, index)) for index in chosen])),
    )


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError as error:
        raise BundleError(f"{file}: expected the file of an episode: {error.strerror}") from error


def _contrast(infos: Sequence[EpisodeInfo]) -> tuple[int, int]:
    """A success and a failure."""
    successes, failures = ([i for i, info in enumerate(infos) if info.success == wanted] for wanted in (True, False))
    for outcome, found in (("success", successes), ("failure", failures)):
        if not found:
            raise InvalidRequest("--plot", f"a data set with a {outcome}", "none among its episodes")
    pairs = ((one, other) for other in failures for one in successes if infos[one].task == infos[other].task)
    return next(pairs, (successes[0], failures[0]))


def _draw_terms(axes: Axes, dataset: Dataset, episode: Episode) -> None:
    for index, name in enumerate(dataset.recipe.reward_terms):
        weight = float(dataset.recipe.settings[f"reward.{name}"])
        axes.plot(_seconds(episode), weight * episode.reward_terms[:, index], label=f"{weight:g} x {name}", lw=1)
    axes.set_ylabel("weighted terms")
    axes.grid(alpha=0.3)


def _draw_return(axes: Axes, episode: Episode) -> None:
    axes.plot(_seconds(episode), episode.reward, label="reward", lw=1)
    axes.plot(_seconds(episode), episode.returns, label="return", lw=2)
    axes.set_xlabel("s")
    axes.set_ylabel("reward and return")
    axes.grid(alpha=0.3)


def _seconds(episode: Episode) -> np.ndarray:
    return np.arange(episode.info.num_steps) / FPS
