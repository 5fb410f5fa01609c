"""Observations of episodes that no policy was trained on, with what the expert did then: a small file to judge one by.

Knows data sets, and no network.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from wavserve.core.errors import BundleError
from wavserve.core.files import write_whole
from wavserve.core.libero import CAMERAS, STILL
from wavserve.core.normalise import action_range
from wavserve.core.spec import NormSpec
from wavserve.core.types import Array
from wavserve.training.episode import Episode
from wavserve.training.labels import labels
from wavserve.training.source import Source

NUM_COMPARED = 8
"""first actions of a chunk whose error counts: those that a robot executes before the next plan"""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class HeldOut:
    """n observations, and the expert's T actions from each on."""

    instructions: tuple[str, ...]
    jpegs: tuple[Mapping[str, bytes], ...]
    """by camera, as a robot sends it"""
    state: Array
    """`[n, 8]`"""
    before: Array
    """`[n, 7]`: the label of the step before"""
    actions: Array
    """`[n, T, 7]`"""
    is_label: NDArray[np.bool_]
    """`[n, T]`: whether the action is one that a policy should make"""

    def __len__(self) -> int:
        return len(self.instructions)


def collect(source: Source, num_each: int, chunk: int) -> HeldOut:
    """`num_each` observations of every task, spread over its held-out episodes and over their course.

    Raises BundleError for a task without a held-out episode that the expert solved.
    """
    rows = [
        _row(*picked, chunk)
        for task in range(len(source.instructions))
        for picked in _picked(source, task, num_each, chunk)
    ]
    instructions, jpegs, *numbers = zip(*rows, strict=True)
    state, before, actions, is_label = map(np.stack, numbers)
    return HeldOut(
        instructions=instructions, jpegs=jpegs, state=state, before=before, actions=actions, is_label=is_label
    )


def _picked(source: Source, task: int, num: int, chunk: int) -> Iterator[tuple[Episode, int]]:
    """Episodes of a task, and the picture to take of each."""
    held_out = filter(source.is_held_out, range(source.num_episodes))
    wanted = [index for index in held_out if source.task(source.info(index)) == task]
    episodes = [source.read(index, pictures=True) for index in wanted]
    usable = [(each, places) for each in episodes if len(places := _usable(each, chunk))]
    if not usable:
        expected = f"a solved held-out episode of {source.instructions[task]!r}"
        raise BundleError(f"{source.folders}: expected {expected}, found none")
    for i in range(num):
        episode, places = usable[i % len(usable)]
        yield episode, int(places[int((i + 0.5) / num * len(places))])


def _usable(episode: Episode, chunk: int) -> NDArray[np.int64]:
    """The pictures whose next actions all count."""
    first = labels(episode, episode.picture_steps[:, None] + np.arange(chunk))[:, :NUM_COMPARED]
    return np.flatnonzero(first.all(axis=1))


def _row(episode: Episode, index: int, chunk: int) -> tuple[Any, ...]:
    step = int(episode.picture_steps[index])
    steps = step + np.arange(chunk)
    inside = np.minimum(steps, episode.info.num_steps - 1)
    before = episode.action[step - 1] if step else np.array(STILL, np.float32)
    jpegs = {camera: episode.pictures[camera][index] for camera in CAMERAS}
    is_label = labels(episode, steps[None])[0]
    return episode.info.instruction, jpegs, episode.state[step], before, episode.action[inside], is_label


def action_error(actions: Array, held_out: HeldOut, norm: NormSpec) -> float:
    """Mean absolute error of actions `[n, T, 7]`, of those that count, as a fraction of half of each one's range."""
    difference = np.abs(actions - held_out.actions)[:, :NUM_COMPARED] / (action_range(norm) / 2)
    return float(difference[held_out.is_label[:, :NUM_COMPARED]].mean())


def baselines(held_out: HeldOut) -> dict[str, Array]:
    """Actions `[n, T, 7]` without a policy. No constant has a smaller error on these observations than the first."""
    tasks = np.array(held_out.instructions)
    median = np.empty_like(held_out.before)
    for task in set(held_out.instructions):
        rows = tasks == task
        compared = held_out.actions[rows][:, :NUM_COMPARED][held_out.is_label[rows][:, :NUM_COMPARED]]
        median[rows] = np.median(compared, axis=0)
    steps = held_out.actions.shape[1]
    return {
        "the task's median action": np.repeat(median[:, None], steps, axis=1),
        "the last action again": np.repeat(held_out.before[:, None], steps, axis=1),
    }


def write(held_out: HeldOut, file: Path) -> None:
    """As safetensors. Raises OSError."""
    jpegs = [each[camera] for each in held_out.jpegs for camera in CAMERAS]
    tensors: dict[str, NDArray[Any]] = {
        "instructions": np.frombuffer(json.dumps(held_out.instructions).encode(), np.uint8),
        "jpegs": np.frombuffer(b"".join(jpegs), np.uint8),
        "jpeg_bytes": np.array([len(jpeg) for jpeg in jpegs], np.int64),
        "state": held_out.state,
        "before": held_out.before,
        "actions": held_out.actions,
        "is_label": held_out.is_label,
    }
    write_whole(file, save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}))


def read(file: Path) -> HeldOut:
    """Raises BundleError for another file."""
    try:
        tensors = load(file.read_bytes())
        content = tensors["jpegs"].tobytes()
        bounds = pairwise([0, *accumulate(tensors["jpeg_bytes"].tolist())])
        jpegs = [content[begin:end] for begin, end in bounds]
        views = zip(*(jpegs[i :: len(CAMERAS)] for i in range(len(CAMERAS))), strict=True)
        return HeldOut(
            instructions=tuple(json.loads(tensors["instructions"].tobytes())),
            jpegs=tuple(dict(zip(CAMERAS, each, strict=True)) for each in views),
            **{name: tensors[name] for name in ("state", "before", "actions", "is_label")},
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise BundleError(f"{file}: expected held-out observations: {error!r}") from error
