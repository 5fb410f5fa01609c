"""Reads a data set of demonstrations, also while it grows.

Every number is checked before it is given out. Knows the format, and neither training nor the simulator.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from wavserve.bundle.bundle import validated
from wavserve.core.errors import BundleError, shown
from wavserve.core.jpeg import decode_jpeg
from wavserve.core.libero import CAMERAS
from wavserve.core.resize import Pixels
from wavserve.training.dataset_format import (
    EPISODE_KEY,
    EPISODES_FILE,
    FPS,
    IMAGE,
    INFO_FILE,
    RECIPE_FILE,
    VERSION,
    Column,
    DatasetRecipe,
    columns,
    data_file,
)
from wavserve.training.episode import Episode, EpisodeInfo

_RECIPE, _INFO = TypeAdapter(DatasetRecipe), TypeAdapter(EpisodeInfo)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set as it was when it was opened. Episodes are numbered from 0."""

    folder: Path
    recipe: DatasetRecipe
    infos: tuple[EpisodeInfo, ...]

    def __len__(self) -> int:
        return len(self.infos)

    def read(self, index: int, pictures: bool = True) -> Episode:
        """One episode; without its pictures it is read many times faster. Raises BundleError naming file and column."""
        file = data_file(self.folder, index)
        known = columns(self.recipe.size, self.recipe.reward_terms)
        wanted = [name for name, column in known.items() if pictures or column.dtype != "image"]
        table = read_table(file, wanted)
        return _episode(_Rows(file, table, known), episode_info(table, file), pictures)

    def episodes(self, pictures: bool = True) -> Iterator[Episode]:
        """All episodes in order, each read when it is asked for."""
        return (self.read(index, pictures) for index in range(len(self)))


def open_dataset(folder: Path) -> Dataset:
    """Raises BundleError naming the file and the first thing that does not fit: format, rate, cameras or dimensions."""
    if not folder.is_dir():
        raise BundleError(f"{folder}: expected the folder of a data set, got {'a file' if folder.exists() else 'none'}")
    recipe = read_recipe(folder)
    _check_info(folder / INFO_FILE, recipe)
    file = folder / EPISODES_FILE
    lines = read_table(file, ["wavserve"]).column("wavserve").to_pylist()
    infos = tuple(_parsed_info(line, file) for line in lines)
    tasks = {task.index for task in recipe.tasks}
    for index, info in enumerate(infos):
        if info.suite != recipe.suite or info.task not in tasks:
            expected = f"one of {recipe.suite} {', '.join(map(str, sorted(tasks)))} as the task of episode {index}"
            raise BundleError(f"{file}: expected {expected}, got {info.suite} {info.task}")
    return Dataset(folder, recipe, infos)


def picture(jpeg: bytes) -> Pixels:
    """`[height, width, 3]` as the server decodes it. Raises BundleError."""
    try:
        return decode_jpeg(jpeg)
    except ValueError as error:
        raise BundleError(f"a picture of the data set: expected a JPEG: {error}") from error


def read_recipe(folder: Path) -> DatasetRecipe:
    """Raises BundleError."""
    file = folder / RECIPE_FILE
    table = _read_json(file)
    try:
        recipe: DatasetRecipe = validated(_RECIPE, table, file.name)
    except BundleError as error:
        raise BundleError(f"{file}: expected a data set's recipe: {error.message}") from error
    return recipe


def read_table(file: Path, names: list[str] | None = None) -> Any:
    """The named columns of a parquet file. Raises BundleError for a file that is truncated, damaged or another."""
    try:
        table = pq.ParquetFile(file).read(names)
    except (OSError, pa.ArrowException) as error:
        raise BundleError(f"{file}: expected a whole parquet file: {error}") from error
    if missing := [name for name in names or [] if name not in table.column_names]:
        raise BundleError(f"{file}: expected a column {missing[0]}, found none")
    return table


def episode_info(table: Any, file: Path) -> EpisodeInfo:
    """What a data file says of its episode. Raises BundleError."""
    return _parsed_info((table.schema.metadata or {}).get(EPISODE_KEY, b""), file)


def _parsed_info(line: bytes | str, file: Path) -> EpisodeInfo:
    try:
        return _INFO.validate_json(line, strict=True)
    except ValidationError as error:
        raise BundleError(f"{file}: expected the facts of an episode, got {shown(line)}") from error


def _read_json(file: Path) -> dict[str, Any]:
    try:
        table = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise BundleError(f"{file}: expected a JSON file of a data set: {error}") from error
    if not isinstance(table, dict):
        raise BundleError(f"{file}: expected a JSON object, got {shown(table)}")
    return table


def _check_info(file: Path, recipe: DatasetRecipe) -> None:
    info = _read_json(file)
    _expect(file, "codebase_version", VERSION, info.get("codebase_version"))
    _expect(file, "fps", FPS, info.get("fps"))
    features = info.get("features")
    features = features if isinstance(features, dict) else {}
    cameras = [name.removeprefix(IMAGE) for name in features if name.startswith(IMAGE)]
    _expect(file, "cameras", ", ".join(CAMERAS), ", ".join(cameras))
    for name, column in columns(recipe.size, recipe.reward_terms).items():
        found = features.get(name)
        if not isinstance(found, dict):
            raise BundleError(f"{file}: expected a column {name}, found none")
        _expect(file, f"{name}.dtype", column.dtype, found.get("dtype"))
        _expect(file, f"{name}.shape", list(column.shape), found.get("shape"))
        if column.names is not None:
            _expect(file, f"{name}.names", list(column.names), found.get("names"))


def _expect(file: Path, field: str, expected: object, actual: object) -> None:
    if expected != actual:
        raise BundleError(f"{file}: {field}: expected {expected}, got {shown(actual)}")


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows of a data file."""

    file: Path
    table: Any
    known: dict[str, Column]

    def numbers(self, name: str) -> NDArray[Any]:
        """`[T, ...]` of a column. Raises BundleError for another shape, and for a number that is not finite."""
        column, shape = self.table.column(name), self.known[name].shape
        if column.null_count:
            raise BundleError(f"{self.file}: {name}: expected a value in each row, found none in {column.null_count}")
        flat = column.combine_chunks()
        if isinstance(flat, pa.FixedSizeListArray):
            flat = flat.flatten()
        array = np.asarray(flat.to_numpy(zero_copy_only=False))
        width = array.size // max(len(column), 1)
        if array.dtype != np.dtype(self.known[name].dtype) or width != shape[0]:
            expected = f"{self.known[name].dtype} {list(shape)}"
            raise BundleError(f"{self.file}: {name}: expected {expected}, got {array.dtype} [{width}]")
        array = array.reshape(-1, width) if shape != (1,) else array
        if not np.isfinite(array).all():
            at = np.argwhere(~np.isfinite(array))[0]
            raise BundleError(f"{self.file}: {name}: expected finite numbers, got {array[tuple(at)]} in row {at[0]}")
        return array

    def pictures(self, camera: str, steps: NDArray[np.int64]) -> tuple[bytes, ...]:
        name = f"{IMAGE}{camera}"
        cells = self.table.column(name).take(pa.array(steps)).to_pylist()
        for step, cell in zip(steps, cells, strict=True):
            if not isinstance(cell, dict) or not isinstance(cell.get("bytes"), bytes):
                raise BundleError(
                    f"{self.file}: {name}: expected the bytes of a picture in row {step}, got {shown(cell)}"
                )
        return tuple(cell["bytes"] for cell in cells)


def _episode(rows: _Rows, info: EpisodeInfo, pictures: bool) -> Episode:
    if rows.table.num_rows != info.num_steps:
        raise BundleError(f"{rows.file}: expected {info.num_steps} rows, got {rows.table.num_rows}")
    ages = rows.numbers("observation.picture_age")
    if (first := ages[:1].tolist()) != [0]:
        raise BundleError(f"{rows.file}: observation.picture_age: expected a picture in the first row, got age {first}")
    taken_at = np.flatnonzero(ages == 0)
    return Episode(
        info=info,
        state=rows.numbers("observation.state"),
        action=rows.numbers("action"),
        executed_action=rows.numbers("executed_action"),
        is_expert=rows.numbers("is_expert"),
        privileged=rows.numbers("observation.privileged"),
        solved=rows.numbers("next.success"),
        reward_terms=rows.numbers("next.reward_terms"),
        reward=rows.numbers("next.reward"),
        returns=rows.numbers("return"),
        picture_steps=taken_at,
        pictures={camera: rows.pictures(camera, taken_at) for camera in CAMERAS} if pictures else {},
    )
