"""The metadata of a data set, made from its episodes: what LeRobot reads first.

Knows no lock and no order of writing.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from wavserve.core.libero import CAMERAS
from wavserve.training.dataset import Dataset, picture
from wavserve.training.dataset_format import (
    DATA_PATH,
    FILES_PER_CHUNK,
    FPS,
    IMAGE,
    VERSION,
    Recipe,
    columns,
)
from wavserve.training.episode import Episode, EpisodeInfo

_QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
_MAX_SAMPLED_EPISODES, _SAMPLE_EVERY = 50, 8
"""of which every eighth picture gives the statistics of pictures"""


def info_table(recipe: Recipe, infos: Sequence[EpisodeInfo]) -> dict[str, Any]:
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


def tasks_table(recipe: Recipe) -> Any:
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


def stats_table(folder: Path, recipe: Recipe, num_episodes: int) -> dict[str, Any]:
    """`stats.json`: of the vectors over all rows; of the pictures over a few, as fractions of 255."""
    if not num_episodes:
        return {}
    dataset = Dataset(folder, recipe, ())
    episodes = [dataset.read(index, pictures=False) for index in range(num_episodes)]
    rows = {
        "observation.state": [episode.state for episode in episodes],
        "observation.privileged": [episode.privileged for episode in episodes],
        "action": [episode.action for episode in episodes],
        "executed_action": [episode.executed_action for episode in episodes],
        "next.reward_terms": [episode.reward_terms for episode in episodes],
        "next.reward": [episode.reward[:, None] for episode in episodes],
        "return": [episode.returns[:, None] for episode in episodes],
    }
    stats: dict[str, Any] = {name: _statistics(np.concatenate(parts)) for name, parts in rows.items()}
    every = -(-num_episodes // _MAX_SAMPLED_EPISODES)
    sampled = [dataset.read(index) for index in range(0, num_episodes, every)]
    return stats | {f"{IMAGE}{camera}": _picture_statistics(sampled, camera) for camera in CAMERAS}


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
