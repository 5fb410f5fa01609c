"""Writes a data set, an episode at a time: whatever ends the program, every episode on disk is whole.

An episode counts as soon as its file has its name. The metadata are made from the data files, so a program that goes on
after a kill leaves the files of one that was never killed. Knows no simulator.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wavserve.core.errors import BundleError, InvalidRequest
from wavserve.core.files import lock as lock_file
from wavserve.core.files import write_whole
from wavserve.core.libero import CAMERAS
from wavserve.training.dataset import Dataset, episode_info, read_recipe, read_table
from wavserve.training.dataset_format import (
    EPISODE_KEY,
    EPISODES_FILE,
    FPS,
    IMAGE,
    INFO_FILE,
    RECIPE_FILE,
    STATS_FILE,
    TASKS_FILE,
    Column,
    DatasetRecipe,
    columns,
    data_file,
)
from wavserve.training.dataset_meta import DatasetStats, episodes_table, info_table, tasks_table
from wavserve.training.episode import Episode, EpisodeInfo

_LOCK_FILE = "dataset.lock"
_MAX_DICTIONARY_BYTES = 64 << 20
"""so that parquet stores a picture once, however many rows repeat it"""


class DatasetWriter:
    """A data set's folder, open for writing. A context manager. One process at a time, and one thread."""

    def __init__(self, folder: Path, recipe: DatasetRecipe) -> None:
        """Makes the folder, or goes on with a data set of the same recipe.

        Raises InvalidRequest when the folder cannot be used, another process writes it, or its recipe differs;
        BundleError for a file that is no data set's.
        """
        self.folder, self.recipe = folder, recipe
        with _writing(folder):
            (folder / "meta").mkdir(parents=True, exist_ok=True)
            self._lock = _locked(folder)
        try:
            with _writing(folder):
                self._begin()
        except BaseException:
            os.close(self._lock)
            raise

    def _begin(self) -> None:
        if not (self.folder / RECIPE_FILE).exists():
            if data_file(self.folder, 0).exists():
                raise BundleError(f"{self.folder}: expected {RECIPE_FILE} beside the episodes, found none")
            write_whole(self.folder / RECIPE_FILE, _json(dataclasses.asdict(self.recipe)))
        _check_same(read_recipe(self.folder), self.recipe)
        self.infos: list[EpisodeInfo] = []
        """of the episodes on disk, in order"""
        while (file := data_file(self.folder, len(self.infos))).exists():
            self.infos.append(episode_info(read_table(file, ["index"]), file))
        self._num_rows = sum(info.num_steps for info in self.infos)
        self._statistics = DatasetStats(Dataset(self.folder, self.recipe, ()).read)

    def add(self, episode: Episode) -> None:
        """Puts an episode on disk, whole. Raises InvalidRequest when the disk does not take it."""
        index = len(self.infos)
        file = data_file(self.folder, index)
        with _writing(self.folder):
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary = file.with_suffix(".tmp")
            pq.write_table(
                self._table(episode, index),
                temporary,
                use_dictionary=True,
                dictionary_pagesize_limit=_MAX_DICTIONARY_BYTES,
            )
            _rename(temporary, file)
        self.infos.append(episode.info)
        self._num_rows += episode.info.num_steps

    def write_metadata(self) -> None:
        """Makes the metadata of all episodes on disk: until then, readers do not see the new ones."""
        with _writing(self.folder):
            (self.folder / EPISODES_FILE).parent.mkdir(parents=True, exist_ok=True)
            _write_table(self.folder / TASKS_FILE, tasks_table(self.recipe))
            _write_table(self.folder / EPISODES_FILE, episodes_table(self.infos))
            write_whole(self.folder / STATS_FILE, _json(self._statistics.table(len(self.infos))))
            write_whole(self.folder / INFO_FILE, _json(info_table(self.recipe, self.infos)))

    def _table(self, episode: Episode, index: int) -> Any:
        known = columns(self.recipe.size, self.recipe.reward_terms)
        values = _values(episode, index, self._num_rows, _task_index(self.recipe, episode.info))
        arrays = {name: _array(values[name], column, name) for name, column in known.items()}
        info = json.dumps(dataclasses.asdict(episode.info), allow_nan=False).encode()
        return pa.table(arrays).replace_schema_metadata({EPISODE_KEY: info})

    def close(self) -> None:
        """Frees the folder for others."""
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _task_index(recipe: DatasetRecipe, info: EpisodeInfo) -> int:
    return [task.index for task in recipe.tasks].index(info.task)


def _values(episode: Episode, index: int, first_row: int, task_index: int) -> dict[str, Any]:
    """The columns of an episode by name: arrays, and for cameras a JPEG a row."""
    num = episode.info.num_steps
    steps, shown = np.arange(num), episode.picture_indices()
    return {
        **{f"{IMAGE}{camera}": [episode.pictures[camera][i] for i in shown] for camera in CAMERAS},
        "observation.picture_age": episode.picture_ages(),
        "observation.state": episode.state,
        "observation.privileged": episode.privileged,
        "action": episode.action,
        "executed_action": episode.executed_action,
        "is_expert": episode.is_expert,
        "next.reward_terms": episode.reward_terms,
        "next.reward": episode.reward,
        "next.success": episode.solved,
        "next.done": steps == num - 1,
        "return": episode.returns,
        "timestamp": (steps / FPS).astype(np.float32),
        "frame_index": steps,
        "episode_index": np.full(num, index),
        "index": first_row + steps,
        "task_index": np.full(num, task_index),
    }


def _array(values: Any, column: Column, name: str) -> Any:
    """A column as parquet stores it, in LeRobot's types."""
    if column.dtype == "image":
        paths = pa.nulls(len(values), pa.string())
        return pa.StructArray.from_arrays([pa.array(values, pa.binary()), paths], ["bytes", "path"])
    array = np.asarray(values)
    if column.dtype.startswith("float") and not np.isfinite(array).all():
        raise BundleError(f"an episode's {name}: expected finite numbers")
    flat = pa.array(np.ascontiguousarray(array, np.dtype(column.dtype)).reshape(-1))
    return flat if column.shape == (1,) else pa.FixedSizeListArray.from_arrays(flat, column.shape[0])


def _check_same(there: DatasetRecipe, wanted: DatasetRecipe) -> None:
    """Raises InvalidRequest naming the first difference."""
    known, asked = (json.loads(_json(dataclasses.asdict(recipe))) for recipe in (there, wanted))
    for name, value in _flat(asked).items():
        before = _flat(known).get(name)
        if before != value:
            expected = f"{name} = {before}, as the data set in this folder has; or another folder"
            raise InvalidRequest("--out", expected, value)


def _flat(table: Mapping[str, Any], path: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{path}{key}.") if isinstance(value, dict) else {f"{path}{key}": value}
    return flat


def _json(table: Any) -> bytes:
    return json.dumps(table, indent=2, allow_nan=False).encode() + b"\n"


def _write_table(file: Path, table: Any) -> None:
    temporary = file.with_suffix(".tmp")
    pq.write_table(table, temporary)
    _rename(temporary, file)


def _rename(temporary: Path, file: Path) -> None:
    """Gives a file its name once its bytes are on the disk."""
    with temporary.open("rb+") as stream:
        os.fsync(stream.fileno())
    temporary.replace(file)


def _locked(folder: Path) -> int:
    """A lock that ends with the process. Raises InvalidRequest when another one has it."""
    lock = lock_file(folder / _LOCK_FILE)
    if lock is None:
        raise InvalidRequest("--out", "a folder that no other program writes", f"{folder}, which one writes")
    return lock


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turns what the disk refuses into an error that says what to do."""
    try:
        yield
    except OSError as error:
        raise InvalidRequest("--out", "a folder that takes the data set", f"{folder}: {error}") from error
