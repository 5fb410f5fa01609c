"""The pictures of many episodes in memory, as JPEG, and batches of single frames and of clips.

A frame of a clip is the latest picture at its control step, as a camera that is read less often would give it. Knows
neither models nor losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from wavserve.core.libero import CAMERAS
from wavserve.training.dataset import picture
from wavserve.training.episode import Episode
from wavserve.training.readout import NUM_NUMBERS, positions

CLIP_FRAMES = 9
"""of a clip: one for the first latent frame, eight for the second"""


@dataclass(frozen=True, slots=True, eq=False)
class FrameBatch:
    """B moments seen by V cameras, for F frames each."""

    frames: Tensor
    """`[B, V, 3, F, height, width]` in -1..1"""
    positions: Tensor
    """`[B, 12]` at the last frame, in m"""
    task: Tensor
    """`[B]`"""


@dataclass(frozen=True, slots=True, eq=False)
class _Film:
    """An episode's pictures."""

    task: int
    jpegs: Sequence[Sequence[bytes]]
    """`[V][P]`"""
    clips: NDArray[np.int64]
    """`[P, 9]`: the pictures of the clip that begins with each"""
    positions: NDArray[np.float32]
    """`[P, 12]`"""


class Pictures:
    """All pictures of some episodes. Every batch is drawn by name."""

    def __init__(self, stride: int) -> None:
        self._stride = stride
        self._films: list[_Film] = []
        self._places: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._places)

    def add(self, episode: Episode, task: int) -> None:
        """Takes an episode's pictures."""
        num = len(episode.picture_steps)
        self._places += [(len(self._films), i) for i in range(num)]
        jpegs = [episode.pictures[camera] for camera in CAMERAS]
        clips = clip_pictures(episode, self._stride)
        self._films.append(_Film(task, jpegs, clips, positions(episode, episode.picture_steps)))

    def draw(self, name: tuple[int, ...], size: int, is_clip: bool) -> FrameBatch:
        """`size` moments as single frames, or as the clips that begin there. The same name gives the same ones."""
        drawn = np.random.default_rng(name).integers(len(self._places), size=size)
        places = [self._places[i] for i in drawn]
        films = [self._films[film] for film, _ in places]
        indices = [film.clips[i] if is_clip else np.array([i]) for film, (_, i) in zip(films, places, strict=True)]
        frames = np.stack([decoded_frames(film.jpegs, index) for film, index in zip(films, indices, strict=True)])
        ends = np.stack([film.positions[index[-1]] for film, index in zip(films, indices, strict=True)])
        task = torch.tensor([film.task for film in films])
        return FrameBatch(to_unit(frames), torch.from_numpy(ends.reshape(-1, NUM_NUMBERS)), task)


def clip_pictures(episode: Episode, stride: int) -> NDArray[np.int64]:
    """`[P, 9]`: for each picture, those of the clip that begins with it. The last one repeats past the end."""
    steps = episode.picture_steps[:, None] + stride * np.arange(CLIP_FRAMES)
    return np.asarray(episode.picture_indices()[np.minimum(steps, episode.info.num_steps - 1)], np.int64)


def decoded_frames(jpegs: Sequence[Sequence[bytes]], index: NDArray[np.int64]) -> NDArray[np.uint8]:
    """`[V, F, height, width, 3]` of chosen pictures; each is decoded once."""
    distinct, back = np.unique(index, return_inverse=True)
    return np.stack([np.stack([picture(view[i]) for i in distinct])[back] for view in jpegs])


def to_unit(frames: NDArray[np.uint8]) -> Tensor:
    """`[B, V, F, height, width, 3]` bytes -> `[B, V, 3, F, height, width]` in -1..1."""
    return rearrange(torch.from_numpy(frames), "b v f h w c -> b v c f h w").float() / 127.5 - 1
