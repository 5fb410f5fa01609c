"""The metadata of a data set, made from its episodes: what LeRobot reads first.

Knows no lock and no order of writing.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from wavserve.core.libero import CAMERAS
from wavserve.training.dataset import picture
from wavserve.training.dataset_format import (
    DATA_PATH,
    FILES_PER_CHUNK,
    FPS,
    IMAGE,
    VERSION,
    DatasetRecipe,
    columns,
)
from wavserve.training.episode import Episode, EpisodeInfo

_QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
_MAX_SAMPLED_EPISODES, _SAMPLE_EVERY = 50, 8
"""of which every eighth picture gives the statistics of pictures"""


def info_table(recipe: DatasetRecipe, infos: Sequence[EpisodeInfo]) -> dict[str, Any]:
    """`info.json`."""
    return {
        "codebase_version": VERSION,
        "robot_type": "libero",
        "fps": FPS,
        "total_episodes": len(infos),
        "total_frames": sum(info.num_steps for info in infos),
        "total_tasks": len(recipe.tasks),
        "chunks_size": FILES_PER_CHUNK,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "splits": {"train": f"0:{len(infos)}"},
        "data_path": DATA_PATH,
        "video_path": None,
        "features": {
            name: {"dtype": column.dtype, "shape": list(column.shape), "names": column.names and list(column.names)}
            for name, column in columns(recipe.size, recipe.reward_terms).items()
        },
    }


def tasks_table(recipe: DatasetRecipe) -> Any:
    """`tasks.parquet`: a pandas table whose index is the instruction. Pandas finds its index by the metadata."""
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [
            {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy, "metadata": None}
            for name, kind, numpy in (("task_index", "int64", "int64"), ("task", "unicode", "object"))
        ],
        "pandas_version": "2.0.0",
    }
    arrays = {
        "task_index": pa.array(range(len(recipe.tasks)), pa.int64()),
        "task": pa.array([task.instruction for task in recipe.tasks], pa.string()),
    }
    return pa.table(arrays).replace_schema_metadata({b"pandas": json.dumps(pandas).encode()})


def episodes_table(infos: Sequence[EpisodeInfo]) -> Any:
    """The table of episodes, with our facts of each as a JSON text in the column `wavserve`."""
    ends = np.cumsum([info.num_steps for info in infos], dtype=np.int64)
    index = np.arange(len(infos))
    zeros = pa.array(np.zeros(len(infos), np.int64))
    return pa.table(
        {
            "episode_index": pa.array(index),
            "tasks": pa.array([[info.instruction] for info in infos], pa.list_(pa.string())),
            "length": pa.array([info.num_steps for info in infos], pa.int64()),
            "data/chunk_index": pa.array(index // FILES_PER_CHUNK),
            "data/file_index": pa.array(index % FILES_PER_CHUNK),
            "dataset_from_index": pa.array(ends - np.array([info.num_steps for info in infos], np.int64)),
            "dataset_to_index": pa.array(ends),
            "meta/episodes/chunk_index": zeros,
            "meta/episodes/file_index": zeros,
            "seed": pa.array([info.seed for info in infos], pa.int64()),
            "kind": pa.array([info.kind for info in infos], pa.string()),
            "success": pa.array([info.success for info in infos], pa.bool_()),
            "wavserve": pa.array([json.dumps(dataclasses.asdict(info)) for info in infos], pa.string()),
        }
    )


class DatasetStats:
    """Makes `stats.json`: of the vectors over all rows; of the pictures over a few episodes, as fractions of 255.

    Keeps the vectors of all episodes, some 30 KB of each, so that an episode's file is read once for them.
    """

    def __init__(self, read: Callable[[int, bool], Episode]) -> None:
        """`read`: gives an episode, with or without its pictures."""
        self._read = read
        self._rows: list[dict[str, NDArray[Any]]] = []

    def table(self, num_episodes: int) -> dict[str, Any]:
        """Of the first episodes, at least as many as the last time. Raises BundleError for a file that is damaged."""
        if not num_episodes:
            return {}
        self._rows += [_vectors(self._read(i, False)) for i in range(len(self._rows), num_episodes)]
        stats: dict[str, Any] = {
            name: _statistics(np.concatenate([rows[name] for rows in self._rows])) for name in self._rows[0]
        }
        every = -(-num_episodes // _MAX_SAMPLED_EPISODES)
        sampled = [self._read(index, True) for index in range(0, num_episodes, every)]
        return stats | {f"{IMAGE}{camera}": _picture_statistics(sampled, camera) for camera in CAMERAS}


def _vectors(episode: Episode) -> dict[str, NDArray[Any]]:
    """`[T, dimensions]` by column."""
    return {
        "observation.state": episode.state,
        "observation.privileged": episode.privileged,
        "action": episode.action,
        "executed_action": episode.executed_action,
        "next.reward_terms": episode.reward_terms,
        "next.reward": episode.reward[:, None],
        "return": episode.returns[:, None],
    }


def _picture_statistics(episodes: Iterable[Episode], camera: str) -> dict[str, Any]:
    pixels = [picture(jpeg) for episode in episodes for jpeg in episode.pictures[camera][::_SAMPLE_EVERY]]
    stats = _statistics(np.concatenate([each.reshape(-1, 3) for each in pixels]) / np.float32(255))
    shaped = {name: [[[number]] for number in numbers] for name, numbers in stats.items() if name != "count"}
    return {**shaped, "count": [len(pixels)]}


def _statistics(rows: NDArray[Any]) -> dict[str, list[float]]:
    """Of `[rows, dimensions]`, by dimension."""
    wide = rows.astype(np.float64)
    return {
        "min": wide.min(0).tolist(),
        "max": wide.max(0).tolist(),
        "mean": wide.mean(0).tolist(),
        "std": wide.std(0).tolist(),
        "count": [len(rows)],
        **{name: np.quantile(wide, share, axis=0).tolist() for name, share in _QUANTILES.items()},
    }
