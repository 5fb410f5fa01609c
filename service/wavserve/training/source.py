"""The episodes that a stage learns from: the first ones of a data set that may grow meanwhile, and their digest.

Knows the data set's files, and neither models nor losses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wavserve.core.errors import BundleError
from wavserve.training.dataset import Dataset, open_dataset
from wavserve.training.dataset_format import RECIPE_FILE, data_file
from wavserve.training.episode import Episode, EpisodeInfo


@dataclass(frozen=True, slots=True)
class Source:
    """The first episodes of a data set. Episodes are only ever added to one, so they stay the same."""

    dataset: Dataset
    file_digests: tuple[str, ...]
    """sha256 (hex) of each episode's file"""
    held_out_every: int

    @property
    def num_episodes(self) -> int:
        return len(self.file_digests)

    @property
    def instructions(self) -> tuple[str, ...]:
        """Of each task, by its place in the data set's recipe."""
        return tuple(task.instruction for task in self.dataset.recipe.tasks)

    def task(self, info: EpisodeInfo) -> int:
        """The place of an episode's task in the data set's recipe."""
        return [task.index for task in self.dataset.recipe.tasks].index(info.task)

    def digest(self, num_episodes: int | None = None) -> str:
        """sha256 (hex) of the data set's recipe and of the first episodes; None: of all of this source's."""
        digest = hashlib.sha256((self.dataset.folder / RECIPE_FILE).read_bytes())
        for each in self.file_digests[:num_episodes]:
            digest.update(each.encode())
        return digest.hexdigest()

    def is_held_out(self, index: int) -> bool:
        """Whether an episode is kept for evaluation. The split is by the episode's number within its task."""
        return self.dataset.infos[index].number % self.held_out_every == self.held_out_every - 1

    def episodes(self, pictures: bool) -> Iterator[tuple[int, Episode]]:
        """Index and content of each, read when it is asked for."""
        return ((index, self.dataset.read(index, pictures)) for index in range(self.num_episodes))


def open_source(folder: Path, num_episodes: int | None, held_out_every: int) -> Source:
    """The first `num_episodes` of a data set; None: all that it has now.

    Raises BundleError when the data set cannot be used or has fewer.
    """
    dataset = open_dataset(folder)
    num = len(dataset) if num_episodes is None else num_episodes
    if not 1 <= num <= len(dataset):
        raise BundleError(f"{folder}: expected at least {max(num, 1)} episodes, found {len(dataset)}")
    files = (data_file(folder, index) for index in range(num))
    return Source(dataset, tuple(_digest(file) for file in files), held_out_every)


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
