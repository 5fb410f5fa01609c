"""The format of a data set: LeRobot's v3.0, one parquet file an episode, and what this package adds.

The columns, the names of the files, and the recipe that every episode of a data set shares. Knows no file's content.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from wavserve.core.libero import ACTION_NAMES, CAMERAS, CONTROL_HZ, STATE_NAMES
from wavserve.training.episode import PRIVILEGED_NAMES

_STRICT = {"extra": "forbid"}
VERSION = "v3.0"
FPS = int(CONTROL_HZ)
INFO_FILE = "meta/info.json"
STATS_FILE = "meta/stats.json"
TASKS_FILE = "meta/tasks.parquet"
EPISODES_FILE = "meta/episodes/chunk-000/file-000.parquet"
RECIPE_FILE = "meta/recipe.json"
"""ours; LeRobot does not read it"""
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
FILES_PER_CHUNK = 1000
EPISODE_KEY = b"wavserve.episode"
"""of the parquet metadata that hold an episode's info"""
IMAGE = "observation.images."


@dataclass(frozen=True, slots=True)
class TaskEntry:
    """One task of a data set."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    index: int
    """in the suite"""
    instruction: str


@dataclass(frozen=True, slots=True)
class DatasetRecipe:
    """How all episodes of a data set were made. A data set goes on only with an equal one."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    suite: str
    tasks: tuple[TaskEntry, ...]
    seed: int
    size: int
    """height and width of the pictures"""
    antialiasing: bool
    picture_every: int
    """control steps from one picture to the next"""
    jpeg_quality: int
    reward_terms: tuple[str, ...]
    settings: Mapping[str, int | float | str] = field(default_factory=dict)
    """of the starts, the disturbances and the reward, by dotted name; for the record"""
    versions: Mapping[str, str] = field(default_factory=dict)
    """of the simulator, which the numbers depend on"""


@dataclass(frozen=True, slots=True)
class Column:
    """A feature as `info.json` declares it."""

    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] | None = None


def columns(size: int, reward_terms: tuple[str, ...]) -> dict[str, Column]:
    """Every column by name, in the order of the files."""
    one = (1,)
    picture = Column("image", (size, size, 3), ("height", "width", "channels"))
    return {
        **{f"{IMAGE}{camera}": picture for camera in CAMERAS},
        "observation.picture_age": Column("int64", one),
        "observation.state": _vector(STATE_NAMES),
        "observation.privileged": _vector(PRIVILEGED_NAMES),
        "action": _vector(ACTION_NAMES),
        "executed_action": _vector(ACTION_NAMES),
        "is_expert": Column("bool", one),
        "next.reward_terms": _vector(reward_terms),
        "next.reward": Column("float32", one),
        "next.success": Column("bool", one),
        "next.done": Column("bool", one),
        "return": Column("float32", one),
        "timestamp": Column("float32", one),
        "frame_index": Column("int64", one),
        "episode_index": Column("int64", one),
        "index": Column("int64", one),
        "task_index": Column("int64", one),
    }


def data_file(folder: Path, index: int) -> Path:
    """The file of an episode, by its index in the data set."""
    chunk, file = divmod(index, FILES_PER_CHUNK)
    return folder / DATA_PATH.format(chunk_index=chunk, file_index=file)


def _vector(names: tuple[str, ...]) -> Column:
    return Column("float32", (len(names),), names)
