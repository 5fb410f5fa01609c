"""The episodes that a stage learns from: the first ones of each data set, in one order, and their digest.

A data set may grow meanwhile. Its new episodes change nothing, because a stage counts the episodes of each data set.
Knows the data sets' files, and neither models nor losses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from wavserve.core.errors import BundleError
from wavserve.training.dataset import Dataset, open_dataset
from wavserve.training.dataset_format import RECIPE_FILE, DatasetRecipe, TaskEntry, data_file
from wavserve.training.episode import Episode, EpisodeInfo

_EQUAL = ("size", "antialiasing", "picture_every", "jpeg_quality", "reward_terms", "versions")
"""entries of their recipes that data sets must share, beside the settings of the reward"""


@dataclass(frozen=True, slots=True)
class Part:
    """The first episodes of one data set. Episodes are only ever added to one, so they stay the same."""

    dataset: Dataset
    file_digests: tuple[str, ...]
    """sha256 (hex) of each episode's file"""

    @property
    def num_episodes(self) -> int:
        return len(self.file_digests)

    @property
    def digest(self) -> str:
        """sha256 (hex) of the data set's recipe and of these episodes."""
        digest = hashlib.sha256((self.dataset.folder / RECIPE_FILE).read_bytes())
        for each in self.file_digests:
            digest.update(each.encode())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Source:
    """The episodes of one data set after those of another. Indices count through all of them."""

    parts: tuple[Part, ...]
    held_out_every: int

    @property
    def nums(self) -> tuple[int, ...]:
        """Episodes of each data set."""
        return tuple(part.num_episodes for part in self.parts)

    @property
    def num_episodes(self) -> int:
        return sum(self.nums)

    @property
    def size(self) -> int:
        """Height and width of the pictures."""
        return self.parts[0].dataset.recipe.size

    @property
    def folders(self) -> str:
        """For people."""
        return ", ".join(str(part.dataset.folder) for part in self.parts)

    @property
    def instructions(self) -> tuple[str, ...]:
        """Of each task, in the order of `task`."""
        return tuple(entry.instruction for _, entry in self._tasks())

    def task(self, info: EpisodeInfo) -> int:
        """The place of an episode's task among the tasks of all data sets."""
        return [(suite, entry.index) for suite, entry in self._tasks()].index((info.suite, info.task))

    def digest(self) -> str:
        """sha256 (hex) of all recipes and episodes."""
        digests = [part.digest for part in self.parts]
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()

    def episode_digest(self, index: int) -> str:
        """sha256 (hex) of an episode's file."""
        part, inner = self._place(index)
        return part.file_digests[inner]

    def is_held_out(self, index: int) -> bool:
        """Whether an episode is kept for evaluation. The split is by the episode's number within its task."""
        return self.info(index).number % self.held_out_every == self.held_out_every - 1

    def info(self, index: int) -> EpisodeInfo:
        """What an episode is."""
        part, inner = self._place(index)
        return part.dataset.infos[inner]

    def read(self, index: int, pictures: bool) -> Episode:
        """One episode. Raises BundleError naming file and column."""
        part, inner = self._place(index)
        return part.dataset.read(inner, pictures)

    def episodes(self, pictures: bool) -> Iterator[tuple[int, Episode]]:
        """Index and content of each, read when it is asked for."""
        return ((index, self.read(index, pictures)) for index in range(self.num_episodes))

    def _tasks(self) -> list[tuple[str, TaskEntry]]:
        """Suite and task of each, without repetition."""
        recipes = [part.dataset.recipe for part in self.parts]
        return list(dict.fromkeys((recipe.suite, task) for recipe in recipes for task in recipe.tasks))

    def _place(self, index: int) -> tuple[Part, int]:
        for part in self.parts:
            if index < part.num_episodes:
                return part, index
            index -= part.num_episodes
        raise IndexError(index)


def open_source(folders: Sequence[Path], nums: Sequence[int] | None, held_out_every: int) -> Source:
    """The first episodes of data sets, `nums` of each; None: all that they have now.

    Raises BundleError when a data set cannot be used or has fewer, and when two do not fit each other.
    """
    parts = [_open(folder, None if nums is None else nums[i]) for i, folder in enumerate(folders)]
    for part in parts[1:]:
        _check_fit(parts[0].dataset, part.dataset)
    source = Source(tuple(parts), held_out_every)
    _check_tasks(source)
    _check_distinct(parts)
    return source


def _open(folder: Path, num_episodes: int | None) -> Part:
    dataset = open_dataset(folder)
    num = len(dataset) if num_episodes is None else num_episodes
    if not 1 <= num <= len(dataset):
        raise BundleError(f"{folder}: expected at least {max(num, 1)} episodes, found {len(dataset)}")
    return Part(dataset, tuple(_digest(data_file(folder, index)) for index in range(num)))


def _check_fit(first: Dataset, other: Dataset) -> None:
    """Raises BundleError naming the first entry of their recipes that differs and must not."""
    ours, theirs = _must_equal(first.recipe), _must_equal(other.recipe)
    for name in {**ours, **theirs}:
        if ours.get(name) != theirs.get(name):
            expected = f"{name} = {ours.get(name)}, as {first.folder} has"
            raise BundleError(f"{other.folder}: expected {expected}, got {theirs.get(name)}")


def _must_equal(recipe: DatasetRecipe) -> dict[str, object]:
    rewards = {name: value for name, value in recipe.settings.items() if name.startswith("reward.")}
    return {**{name: getattr(recipe, name) for name in _EQUAL}, **rewards}


def _check_tasks(source: Source) -> None:
    """Raises BundleError when data sets have two instructions for a task."""
    known: dict[tuple[str, int], str] = {}
    for suite, task in source._tasks():
        if (before := known.setdefault((suite, task.index), task.instruction)) != task.instruction:
            expected = f"{before!r} as the instruction of {suite} task {task.index}"
            raise BundleError(f"{source.folders}: expected {expected}, got {task.instruction!r}")


def _check_distinct(parts: Sequence[Part]) -> None:
    """Raises BundleError when an episode is in two data sets, as in a copy of one."""
    known: dict[str, Path] = {}
    for part in parts:
        folder = part.dataset.folder
        for digest in part.file_digests:
            if digest in known:
                raise BundleError(f"{folder}: expected other episodes than {known[digest]} has, got the same")
        known |= dict.fromkeys(part.file_digests, folder)


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"{file}: expected the file of an episode: {error.strerror}") from error
