"""The maths of latent planning: draw, score, elites, refit (paper section 4.3, Algorithm 1). Pure numpy.

It sees noises, values and Gaussians only, and knows neither models nor batching. Noises have names, and only the names
are kept: the noises of elites are drawn again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wavserve.core.errors import BackendError
from wavserve.core.noise import Stream, draw_many
from wavserve.core.spec import Mode, PlannerConfig
from wavserve.core.types import Array, Gaussian, IterationRecord

SNR_EPSILON = 1e-6
MEAN_MODES = frozenset({"mean", "best_of_n"})
"""Modes that score a sample by its mean value, instead of its SNR."""
CONTROL_MODES = frozenset({"random_scores", "fixed_shrink"})
"""Modes that ignore the scores: experimental controls that planning is measured against."""


class NoiseSource(Protocol):
    """Standard normals by name. The models get `key` and the names, or with `explicit` the numbers themselves."""

    @property
    def key(self) -> tuple[int, int]: ...

    @property
    def explicit(self) -> bool: ...

    def draw(self, stream: Stream, iteration: int, samples: Sequence[int], shape: tuple[int, ...]) -> Array:
        """`[len(samples), *shape]`."""
        ...


@dataclass(frozen=True, slots=True)
class NamedNoise:
    """Philox noise of one plan. `key = (seed, sequence)`, so a fixed seed gives other noise at each replan."""

    key: tuple[int, int]
    explicit: bool = False

    def draw(self, stream: Stream, iteration: int, samples: Sequence[int], shape: tuple[int, ...]) -> Array:
        return draw_many(self.key, stream, iteration, samples, shape)


def standard(shape: tuple[int, ...]) -> Gaussian:
    """The Gaussian every plan starts from: mean 0, std 1."""
    return Gaussian(np.zeros(shape, np.float32), np.ones(shape, np.float32))


def apply(gaussian: Gaussian, draws: Array) -> Array:
    """Noise `[E, ...]` of a Gaussian from standard normals; a Gaussian of one view is used for all views."""
    noise: Array = draws * gaussian.std + gaussian.mean
    return noise


def value_rows(mode: Mode, num_video_samples: int, num_value_samples: int) -> NDArray[np.int64]:
    """Which value row `[N, M]` is computed on each video sample; rows are always *credited* to sample `row // M`.

    `paper`: row `n*M + m` is computed on sample `n`. `published`: the released code tiles copy-major, so row `r` is
    computed on sample `r % N`, and most scores go to the wrong sample.
    """
    rows = np.arange(num_video_samples * num_value_samples)
    if mode == "published":
        return rows.reshape(num_value_samples, num_video_samples).T
    return rows.reshape(num_video_samples, num_value_samples)


def snr(values: Array) -> Array:
    """Signal-to-noise ratio over the tokens of the state value, `[..., T] -> [...]`: mean / (unbiased std + 1e-6)."""
    ratio: Array = values.mean(axis=-1) / (values.std(axis=-1, ddof=1) + SNR_EPSILON)
    return ratio


def scores_of(mode: Mode, values: Array) -> Array:
    """What a mode scores a value sample by, `[..., T] -> [...]`: its SNR, or its mean."""
    scores: Array = values.mean(axis=-1) if mode in MEAN_MODES else snr(values)
    return scores


def credit(computed: Array, rows: NDArray[np.int64]) -> Array:
    """Scores `[N, M]` by the sample they are credited to, from `computed [N, M]` by the sample they were computed on.

    `rows [N, M]`: the value row of each computed score, see `value_rows`.
    """
    credited = np.empty(computed.size, np.float32)
    credited[rows.reshape(-1)] = computed.reshape(-1)
    return credited.reshape(computed.shape)


def top(scores: Array, count: int) -> tuple[int, ...]:
    """Indices of the `count` highest scores, best first; the lower index wins a tie.

    Raises BackendError when a score is not finite: no action is better than a guessed one.
    """
    if not np.isfinite(scores).all():
        raise BackendError(f"the value model gave {np.count_nonzero(~np.isfinite(scores))} scores that are not finite")
    return tuple(int(i) for i in np.argsort(-scores, kind="stable")[:count])


def refit(gaussian: Gaussian, elites: Array, config: PlannerConfig) -> Gaussian:
    """`mean <- a mean + (1-a) mean(elites)`, `std <- a std + (1-a) d std(elites)`; elites `[E, ...]`, unbiased std."""
    a, d = np.float32(config.smoothing), np.float32(config.decay)
    mean = a * gaussian.mean + (1 - a) * elites.mean(axis=0)
    std = a * gaussian.std + (1 - a) * d * elites.std(axis=0, ddof=1)
    return Gaussian(mean, std)


@dataclass(frozen=True, slots=True)
class Proposal:
    """The two Gaussians of a plan: video noise `[V or 1, C, F, H, W]` of the generated frames, value noise `[T, C]`."""

    video: Gaussian
    value: Gaussian

    @staticmethod
    def standard(video_shape: tuple[int, ...], value_shape: tuple[int, ...], config: PlannerConfig) -> Proposal:
        """Where every plan starts. Views share one video Gaussian unless `config.per_view_noise`."""
        views = video_shape[0] if config.per_view_noise else 1
        return Proposal(standard((views, *video_shape[1:])), standard(value_shape))

    def step(
        self,
        values: Array | None,
        iteration: int,
        config: PlannerConfig,
        noise: NoiseSource,
        video_shape: tuple[int, ...],
    ) -> tuple[Proposal, IterationRecord]:
        """One reweighting: from computed `values [N, M, T]` to the next proposal and the record of the iteration.

        `video_shape`: one video noise, `(V, C, F, H, W)`. Control modes need no values. Raises BackendError when a
        value is not finite.
        """
        if config.mode == "fixed_shrink":
            return self._shrunk(config)
        scores = _credited(values, iteration, config, noise)
        if config.mode == "best_of_n":
            return self._fixed(scores, iteration, noise, video_shape)
        video_elites = top(scores.max(axis=1), config.num_video_elites)
        value_elites = top(scores.reshape(-1), config.num_value_elites)
        videos = noise.draw(Stream.VIDEO, iteration, video_elites, video_shape)
        if not config.per_view_noise:  # views are pooled: each is an elite of its own
            videos = videos.reshape(-1, 1, *video_shape[1:])
        draws = noise.draw(Stream.VALUE, iteration, value_elites, self.value.mean.shape)
        after = Proposal(
            refit(self.video, apply(self.video, videos), config), refit(self.value, apply(self.value, draws), config)
        )
        return after, self._record(after, scores, video_elites, value_elites)

    def _fixed(
        self, scores: Array, iteration: int, noise: NoiseSource, video_shape: tuple[int, ...]
    ) -> tuple[Proposal, IterationRecord]:
        """Both Gaussians without a spread at the noises of the best sample: every later draw is that sample."""
        [row] = top(scores.reshape(-1), 1)
        sample = row // scores.shape[1]
        [video] = apply(self.video, noise.draw(Stream.VIDEO, iteration, [sample], video_shape))
        [value] = apply(self.value, noise.draw(Stream.VALUE, iteration, [row], self.value.mean.shape))
        after = Proposal(Gaussian(video, np.zeros_like(video)), Gaussian(value, np.zeros_like(value)))
        return after, self._record(after, scores, (sample,), (row,))

    def _shrunk(self, config: PlannerConfig) -> tuple[Proposal, IterationRecord]:
        """The expected effect of elites drawn from the Gaussian itself: the Gaussian gets narrower."""
        factor = np.float32(config.smoothing + (1 - config.smoothing) * config.decay)
        after = Proposal(
            Gaussian(self.video.mean, self.video.std * factor), Gaussian(self.value.mean, self.value.std * factor)
        )
        return after, self._record(after, np.zeros((0, config.num_value_samples), np.float32), (), ())

    def _record(
        self, after: Proposal, scores: Array, video_elites: tuple[int, ...], value_elites: tuple[int, ...]
    ) -> IterationRecord:
        stds = float(after.video.std.mean()), float(after.value.std.mean())
        moved = max(distance(self.video, after.video), distance(self.value, after.value))
        return IterationRecord(scores, video_elites, value_elites, *stds, moved)


def _credited(values: Array | None, iteration: int, config: PlannerConfig, noise: NoiseSource) -> Array:
    """Credited scores `[N, M]`; for mode `random_scores`, standard normals of stream SCORE."""
    shape = config.num_video_samples, config.num_value_samples
    if config.mode == "random_scores":
        drawn: Array = noise.draw(Stream.SCORE, iteration, range(1), shape)[0]
        return drawn
    assert values is not None, f"mode {config.mode} is scored by the value model"
    return credit(scores_of(config.mode, values), value_rows(config.mode, *shape))


def distance(one: Gaussian, other: Gaussian) -> float:
    """Root mean square difference of mean and std together."""
    return float(np.sqrt(np.mean((one.mean - other.mean) ** 2) + np.mean((one.std - other.std) ** 2)))
