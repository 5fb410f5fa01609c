"""What predicted values say of achieved returns, within scenes and over all of them. Pure numpy; knows no file."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadtest.study.scenes import MEAN, SCORES, Sample
from wavserve.core.normalise import rewards_and_returns
from wavserve.core.spec import NormSpec

_NUM_RESAMPLES = 4000
Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over scenes, and the percentiles 2.5 and 97.5 of its bootstrap over scenes (Efron 1979)."""

    value: float
    low: float
    high: float
    num: int
    """scenes"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one score is worth."""

    score: str
    rank_correlation: Interval | None
    """Spearman's, within a scene; None: no scene has samples that differ"""
    gain: Interval | None
    """return of the sample with the highest score minus the mean return of its scene"""
    possible_gain: Interval | None
    """the same for the sample that was best in truth. No score gains more; part of it is chance that none foresees"""
    over_scenes: float
    """Spearman's, of the scenes' mean score and mean return: does it tell scenes apart?"""
    spread_of_returns: float
    """standard deviation within a scene, the mean over scenes"""


def verdicts(samples: Sequence[Sample]) -> list[Verdict]:
    """Of each score. Scenes that were over before their moment are left out."""
    scenes: defaultdict[int, list[Sample]] = defaultdict(list)
    for sample in samples:
        if len(sample.predicted) == len(SCORES):
            scenes[sample.scene].append(sample)
    return [_verdict(score, [each for each in scenes.values() if len(each) > 1]) for score in SCORES]


def _verdict(score: str, scenes: Sequence[Sequence[Sample]]) -> Verdict:
    pairs = [
        (np.array([each.predicted[score] for each in scene]), np.array([each.achieved for each in scene]))
        for scene in scenes
    ]
    rhos = [rho for predicted, achieved in pairs if np.isfinite(rho := spearman(predicted, achieved))]
    means = np.array([[predicted.mean(), achieved.mean()] for predicted, achieved in pairs]).reshape(-1, 2)
    return Verdict(
        score=score,
        rank_correlation=bootstrapped(rhos),
        gain=bootstrapped([float(achieved[predicted.argmax()] - achieved.mean()) for predicted, achieved in pairs]),
        possible_gain=bootstrapped([float(achieved.max() - achieved.mean()) for _, achieved in pairs]),
        over_scenes=spearman(means[:, 0], means[:, 1]),
        spread_of_returns=float(np.mean([achieved.std(ddof=1) for _, achieved in pairs])) if pairs else float("nan"),
    )


@dataclass(frozen=True, slots=True)
class Bin:
    """Samples of like predictions, and what they achieved."""

    predicted: float
    """score of mode `mean`, in the model's units: the highest of M value samples, so it lies above their mean"""
    predicted_return: float | None
    """the mean of the same scores as returns; None: the bundle does not declare their units"""
    achieved: float
    successes: float
    num: int


def calibration(samples: Sequence[Sample], norm: NormSpec | None, num_bins: int = 5) -> list[Bin]:
    """The samples in bins of equal size, by their score of mode `mean` (the paper's figure 8). `norm`: the bundle's
    `value_norm`."""
    known = sorted((each for each in samples if MEAN in each.predicted), key=lambda each: each.predicted[MEAN])
    parts = [known[start:end] for start, end in _cuts(len(known), num_bins)]
    return [
        Bin(
            float(np.mean([each.predicted[MEAN] for each in part])),
            None if norm is None else float(np.mean([_as_return(each.predicted[MEAN], norm) for each in part])),
            float(np.mean([each.achieved for each in part])),
            float(np.mean([each.success for each in part])),
            len(part),
        )
        for part in parts
        if part
    ]


def _as_return(score: float, norm: NormSpec) -> float:
    return float(rewards_and_returns(np.array([0.0, score], np.float32), norm)[1])


def _cuts(num: int, num_bins: int) -> list[tuple[int, int]]:
    edges = [num * edge // num_bins for edge in range(num_bins + 1)]
    return list(itertools.pairwise(edges))


def spearman(one: Numbers, other: Numbers) -> float:
    """Spearman's rank correlation; NaN where one of both does not vary."""
    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(np.corrcoef(ranks(one), ranks(other))[0, 1])


def ranks(values: Numbers) -> Numbers:
    """From 1; equal values share the mean of their ranks."""
    below = (values[:, None] > values[None]).sum(axis=1)
    equal = (values[:, None] == values[None]).sum(axis=1)
    return np.asarray(below + (equal + 1) / 2)


def bootstrapped(values: Sequence[float]) -> Interval | None:
    """The mean of one number a scene; None without a scene."""
    if not values:
        return None
    array = np.array(values)
    drawn = np.random.default_rng(0).integers(len(array), size=(_NUM_RESAMPLES, len(array)))
    low, high = np.percentile(array[drawn].mean(axis=1), (2.5, 97.5))
    return Interval(float(array.mean()), float(low), float(high), len(array))
