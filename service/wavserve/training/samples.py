"""Training samples of the transformers, one at each picture of an episode, and batches of them.

A sample holds what a plan sees (the latents of the latest picture, the state) and what it should make of it (the
latents of a later picture, the actions, states, rewards and returns). Knows neither models nor losses.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wavserve.core.normalise import Normaliser
from wavserve.core.spec import PolicySpec
from wavserve.models.networks.layers import Context
from wavserve.training.episode import Episode
from wavserve.training.labels import labels
from wavserve.training.pictures import clip_pictures
from wavserve.training.statistics import Statistics


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """n samples of V views, L tokens a frame, T steps. Numbers are normalised."""

    memory: Tensor
    """latents `[n, V, L, C]`, float16"""
    future: Tensor
    """latents `[n, V, L, C]`, float16"""
    state: Tensor
    """`[n, S]`"""
    actions: Tensor
    """`[n, T, A + S]`: the actions, and the states after them"""
    is_label: Tensor
    """`[n, T]`: whether an action is to be imitated"""
    values: Tensor
    """`[n, T, S + 2]`: states, reward and return after each action"""
    task: Tensor
    """`[n]`"""

    def take(self, rows: NDArray[np.int64]) -> Samples:
        index = torch.from_numpy(rows)
        return Samples(*(getattr(self, field.name)[index] for field in fields(self)))


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """B samples, as many of one task after those of another, and the R tasks' instructions."""

    samples: Samples
    text: Context
    """`[R, P, Ctext]`; each row applies to B / R samples"""

    @property
    def size(self) -> int:
        return len(self.samples.task)


class Pool:
    """All samples of some episodes. Every batch is drawn by name and has equally many of each task."""

    def __init__(self, samples: Samples, text: Context, device: torch.device) -> None:
        self._samples, self._text, self._device = samples, text, device
        tasks = samples.task.numpy()
        self._rows = {int(task): np.flatnonzero(tasks == task) for task in np.unique(tasks)}

    def __len__(self) -> int:
        return len(self._samples.task)

    @property
    def has_labels(self) -> bool:
        """Whether any action is to be imitated."""
        return bool(self._samples.is_label.any())

    def draw(self, name: tuple[int, ...], size: int) -> Batch:
        """About `size` samples, at least one of each task. The same name gives the same samples."""
        each = max(1, size // len(self._rows))
        generator = np.random.default_rng(name)
        rows = np.concatenate([generator.choice(rows, each) for rows in self._rows.values()])
        taken = self._samples.take(rows)
        moved = (getattr(taken, field.name).to(self._device) for field in fields(Samples))
        index = torch.tensor(list(self._rows))
        mask = None if self._text.mask is None else self._text.mask[index].to(self._device)
        whole = Samples(*(x.float() if x.dtype == torch.float16 else x for x in moved))
        return Batch(whole, Context(self._text.tokens[index].to(self._device), mask))


class Sampler:
    """Makes the samples of episodes for a policy's spec."""

    def __init__(self, spec: PolicySpec, statistics: Statistics, future_stride: int) -> None:
        self._spec, self._statistics, self._normaliser = spec, statistics, Normaliser(spec)
        self._stride = future_stride

    def of(self, episode: Episode, latents: Tensor, task: int) -> Samples:
        """One sample at each of the episode's P pictures, whose `latents` are `[P, V, L, C]`."""
        steps = episode.picture_steps[:, None] + np.arange(self._spec.chunk)
        last = episode.info.num_steps - 1
        now, after = np.minimum(steps, last), np.minimum(steps + 1, last)
        states = self._states(episode.state)
        actions = torch.from_numpy(self._normaliser.outputs(episode.action, episode.state[0]))
        values = self._statistics.values(episode.reward, episode.returns)
        return Samples(
            memory=latents,
            future=latents[torch.from_numpy(clip_pictures(episode, self._stride)[:, -1])],
            state=states[episode.picture_steps],
            actions=torch.cat([actions[now], states[after]], dim=-1),
            is_label=torch.from_numpy(labels(episode, steps)),
            values=torch.cat([states[after], values[now]], dim=-1),
            task=torch.full((len(steps),), task),
        )

    def _states(self, states: NDArray[np.float32]) -> Tensor:
        tokens = np.stack([self._normaliser.history(state) for state in states])
        return torch.from_numpy(tokens[:, self._spec.action.vector.dim :])


def joined(samples: Iterable[Samples]) -> Samples:
    """All of them, in order."""
    listed = list(samples)
    return Samples(*(torch.cat([getattr(each, field.name) for each in listed]) for field in fields(Samples)))


def padded(embeddings: Sequence[Tensor], masked: float) -> Context:
    """Embeddings `[P, C]` of different lengths as one context `[R, longest, C]`, its padding masked."""
    tokens = torch.nn.utils.rnn.pad_sequence(list(embeddings), batch_first=True)
    mask = torch.zeros(tokens.shape[:2])
    for row, each in enumerate(embeddings):
        mask[row, len(each) :] = masked
    return Context(tokens, mask)
