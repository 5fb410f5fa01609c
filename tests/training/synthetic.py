"""A small data set without a simulator: a point goes to a place that its picture shows, and every number is told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wavserve.core.jpeg import JPEG_QUALITY, jpeg_encoder
from wavserve.core.libero import ACTION_NAMES, CAMERAS, STATE_NAMES
from wavserve.core.resize import Pixels
from wavserve.training.dataset import Dataset, open_dataset
from wavserve.training.dataset_format import DatasetRecipe, TaskEntry
from wavserve.training.dataset_writer import DatasetWriter
from wavserve.training.episode import PRIVILEGED_NAMES, Episode, EpisodeInfo, Kind

REWARD_TERMS = ("object", "solved")
INSTRUCTIONS = ("pick up the red one", "pick up the blue one", "pick up the green one")


def recipe(num_tasks: int = 2, size: int = 32, seed: int = 0, picture_every: int = 4) -> DatasetRecipe:
    return DatasetRecipe(
        suite="fake_reach",
        tasks=tuple(TaskEntry(3 + index, INSTRUCTIONS[index]) for index in range(num_tasks)),
        seed=seed,
        size=size,
        antialiasing=True,
        picture_every=picture_every,
        jpeg_quality=JPEG_QUALITY,
        reward_terms=REWARD_TERMS,
        settings={"reward.object": 0.5, "reward.solved": 0.5},
        versions={"simulator": "fake 1"},
    )


def episode(recipe: DatasetRecipe, task: TaskEntry, number: int, num_steps: int = 40, kind: Kind = "expert") -> Episode:
    """One that its arguments fix. Steps 10 to 14 are pushed, and a failure solves nothing."""
    rng = np.random.default_rng([recipe.seed, task.index, number])
    action = np.clip(rng.normal(0, 0.3, (num_steps, len(ACTION_NAMES))), -1, 1).astype(np.float32)
    executed = action.copy()
    executed[10:15, 0] = np.where(action[10:15, 0] > 0, action[10:15, 0] - 1, action[10:15, 0] + 1)
    state = np.zeros((num_steps, len(STATE_NAMES)), np.float32)
    state[1:, :3] = np.cumsum(executed[:-1, :3] * 0.01, axis=0)
    place = rng.uniform(-0.3, 0.3, 6)
    solved = (np.arange(num_steps) >= num_steps - 8) & (kind != "failure")
    terms = np.stack([np.linspace(0, 1, num_steps), solved], axis=1).astype(np.float32)
    steps = np.arange(0, num_steps, recipe.picture_every)
    success = bool(solved.any())
    return Episode(
        info=EpisodeInfo(
            recipe.suite, task.index, task.instruction, number, recipe.seed + number, kind, success, num_steps
        ),
        state=state,
        action=action,
        executed_action=executed,
        is_expert=np.ones(num_steps, bool),
        privileged=np.tile(place, (num_steps, 1)).astype(np.float32)[:, : len(PRIVILEGED_NAMES)],
        solved=solved,
        reward_terms=terms,
        reward=terms.mean(axis=1),
        returns=np.maximum.accumulate(terms.mean(axis=1)[::-1])[::-1].copy(),
        picture_steps=steps,
        pictures={camera: _pictures(recipe.size, place, state[steps], camera) for camera in CAMERAS},
    )


def _pictures(size: int, place: NDArray[np.float64], states: NDArray[np.float32], camera: str) -> tuple[bytes, ...]:
    encode = jpeg_encoder()
    assert encode is not None
    return tuple(encode(_scene(size, place, state, camera), JPEG_QUALITY) for state in states)


def _scene(size: int, place: NDArray[np.float64], state: NDArray[np.float32], camera: str) -> Pixels:
    """A red square at the place and a white one at the robot; the wrist sees the place from the robot."""
    ground = np.full((size, size, 3), 60 if camera == "agentview" else 100, np.uint8)
    ground[:, :, 2] += np.arange(size, dtype=np.uint8)
    points = [(place[:2], (255, 0, 0)), (state[:2], (255, 255, 255))]
    if camera == "wrist":
        points = [(place[:2] - state[:2], (255, 0, 0))]
    for point, colour in points:
        row, column = np.clip((point + 0.5) * size, 0, size - 4).astype(int)
        ground[row : row + 4, column : column + 4] = colour
    return ground


def write(
    folder: Path,
    *,
    num_tasks: int = 2,
    per_task: int = 3,
    num_steps: int = 40,
    size: int = 32,
    seed: int = 0,
    kinds: Sequence[Kind] = ("expert",),
) -> Dataset:
    """Writes a data set, and opens it. `kinds`: of the episodes of each task, in turn."""
    made = recipe(num_tasks, size, seed)
    with DatasetWriter(folder, made) as writer:
        for number in range(per_task):
            for task in made.tasks:
                writer.add(episode(made, task, number, num_steps, kinds[number % len(kinds)]))
        writer.write_metadata()
    return open_dataset(folder)
