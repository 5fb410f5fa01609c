"""The planner's maths against slow oracles that follow the paper line by line."""

from __future__ import annotations

import hashlib
import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wavserve.core import noise
from wavserve.core.errors import BackendError
from wavserve.core.noise import FINAL, Stream
from wavserve.core.spec import PlannerConfig
from wavserve.core.types import Array
from wavserve.planning.proposal import (
    NamedNoise,
    Proposal,
    apply,
    credit,
    refit,
    scores_of,
    snr,
    standard,
    top,
    value_rows,
)

sizes = st.integers(2, 7)
seeds = st.integers(0, 2**63 - 1)


def slow_step(
    values: Array, iteration: int, config: PlannerConfig, source: NamedNoise, shape: tuple[int, ...]
) -> dict[str, object]:
    """One iteration of Algorithm 1 from value tokens `[N, M, T]`, pooled over views, in plain loops and float64."""
    n, m = values.shape[:2]
    rows = [
        statistics.fmean(v) / (statistics.stdev(v) + 1e-6) for v in values.reshape(n * m, -1).astype(float).tolist()
    ]
    score = [max(rows[i * m : (i + 1) * m]) for i in range(n)]
    num_videos = math.ceil(round(config.video_elite_fraction * n, 9))
    num_values = math.ceil(round(config.value_elite_fraction * n * m, 9))
    video_elites = sorted(range(n), key=lambda i: -score[i])[:num_videos]
    value_elites = sorted(range(n * m), key=lambda r: -rows[r])[:num_values]
    videos = [view for i in video_elites for view in noise.draw(source.key, Stream.VIDEO, iteration, i, shape)]
    a, d = config.smoothing, config.decay
    flat = [v.reshape(-1).astype(float).tolist() for v in videos]
    std = [a + (1 - a) * d * statistics.stdev(column) for column in zip(*flat, strict=True)]
    mean = [(1 - a) * statistics.fmean(column) for column in zip(*flat, strict=True)]
    return {"video_elites": video_elites, "value_elites": value_elites, "mean": mean, "std": std, "snr": rows}


@given(n=sizes, m=st.integers(1, 4), seed=seeds, fractions=st.tuples(st.floats(0.3, 1), st.floats(0.3, 1)))
def test_a_step_equals_the_algorithm_in_plain_loops(n: int, m: int, seed: int, fractions: tuple[float, float]) -> None:
    config = PlannerConfig(
        num_video_samples=n,
        num_value_samples=m,
        video_elite_fraction=max(fractions[0], 1.01 / n),
        value_elite_fraction=max(fractions[1], 1.01 / (n * m)),
    )
    values = np.random.default_rng(seed).standard_normal((n, m, 5)).astype(np.float32)
    source, shape = NamedNoise((seed, 3)), (2, 1, 1, 2, 2)
    proposal = Proposal.standard(shape, (5, 2), config)
    after, record = proposal.step(values, 4, config, source, shape)
    slow = slow_step(values, 4, config, source, shape)
    assert list(record.video_elites) == slow["video_elites"]
    assert list(record.value_elites) == slow["value_elites"]
    np.testing.assert_allclose(record.snr.reshape(-1), slow["snr"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(after.video.mean.reshape(-1), slow["mean"], atol=1e-5)
    np.testing.assert_allclose(after.video.std.reshape(-1), slow["std"], atol=1e-5)


@given(n=sizes, m=st.integers(1, 4))
def test_published_credits_rows_as_the_released_code_does(n: int, m: int) -> None:
    """Row r is computed on video sample r % N and credited to r // M; paper mode computes it on r // M."""
    for mode, sample_of in (("published", lambda r: r % n), ("paper", lambda r: r // m)):
        rows = value_rows(mode, n, m)  # type: ignore[arg-type]
        assert sorted(rows.reshape(-1).tolist()) == list(range(n * m))
        computed = np.empty((n, m), np.float32)
        for r in range(n * m):
            computed[np.nonzero((rows == r) & (np.arange(n)[:, None] == sample_of(r)))] = r
        assert credit(computed, rows).reshape(-1).tolist() == list(range(n * m))


def test_snr_uses_the_unbiased_std() -> None:
    assert snr(np.array([1.0, 2.0, 3.0], np.float32)) == pytest.approx(2.0 / (1.0 + 1e-6))


STEADY_OR_HIGH = np.array([[[1.0, 1.1, 0.9]], [[5.0, 1.0, 9.0]], [[0.0, 0.5, 1.0]]], np.float32)
"""Values `[N 3, M 1, T 3]`: the first sample has the highest SNR, the second the highest mean."""


def test_a_mean_score_prefers_what_is_high_to_what_is_steady() -> None:
    assert scores_of("paper", STEADY_OR_HIGH).argmax() == 0
    assert scores_of("mean", STEADY_OR_HIGH) == pytest.approx(np.array([[1.0], [5.0], [0.5]]))
    fractions = {"video_elite_fraction": 0.6, "value_elite_fraction": 0.6}
    config = PlannerConfig(mode="mean", num_video_samples=3, num_value_samples=1, **fractions)  # type: ignore[arg-type]
    shape = (2, 1, 1, 2, 2)
    after, record = Proposal.standard(shape, (3, 2), config).step(STEADY_OR_HIGH, 0, config, NamedNoise((1, 0)), shape)
    assert record.video_elites == (1, 0)
    assert record.scores == pytest.approx([1.0, 5.0, 0.5])
    assert after.video.std.min() > 0, "as `paper`, it refits"


def test_the_best_of_n_is_drawn_itself() -> None:
    config = PlannerConfig(mode="best_of_n", num_video_samples=2, num_value_samples=2)
    shape, source = (2, 1, 1, 2, 2), NamedNoise((1, 0))
    values = np.array([[[1.0, 1.0], [2.0, 2.0]], [[9.0, 3.0], [0.0, 0.0]]], np.float32)
    after, record = Proposal.standard(shape, (2, 3), config).step(values, 0, config, source, shape)
    assert (record.video_elites, record.value_elites) == ((1,), (2,))
    final = source.draw(Stream.VIDEO, FINAL, [0], shape), source.draw(Stream.VALUE, FINAL, [0], (2, 3))
    assert np.array_equal(apply(after.video, final[0]), source.draw(Stream.VIDEO, 0, [1], shape))
    assert np.array_equal(apply(after.value, final[1]), source.draw(Stream.VALUE, 0, [2], (2, 3)))


def test_ties_go_to_the_lower_index() -> None:
    assert top(np.array([1.0, 2.0, 2.0, 0.0], np.float32), 3) == (1, 2, 0)


def test_scores_that_are_not_finite_are_an_error() -> None:
    with pytest.raises(BackendError, match="2 scores that are not finite"):
        top(np.array([1.0, np.nan, np.inf], np.float32), 2)


def test_refit_by_hand() -> None:
    config = PlannerConfig(smoothing=0.5, decay=0.5)
    after = refit(standard((1,)), np.array([[1.0], [3.0]], np.float32), config)
    assert after.mean == pytest.approx(1.0)  # 0.5 * 0 + 0.5 * 2
    assert after.std == pytest.approx(0.5 + 0.5 * 0.5 * math.sqrt(2))


def test_per_view_noise_fits_each_view_alone() -> None:
    config = PlannerConfig(num_video_samples=4, num_value_samples=2, per_view_noise=True, value_elite_fraction=0.5)
    shape = (2, 1, 1, 1, 1)
    values = np.random.default_rng(0).standard_normal((4, 2, 5)).astype(np.float32)
    after, record = Proposal.standard(shape, (5, 2), config).step(values, 0, config, NamedNoise((1, 0)), shape)
    elites = noise.draw_many((1, 0), Stream.VIDEO, 0, record.video_elites, shape)
    assert after.video.mean.shape == shape
    np.testing.assert_allclose(after.video.mean, 0.1 * elites.mean(axis=0), atol=1e-6)


@given(seed=seeds, sequence=seeds, iteration=st.integers(-1, 10), sample=st.integers(0, 200))
def test_a_draw_depends_on_its_name_alone(seed: int, sequence: int, iteration: int, sample: int) -> None:
    alone = noise.draw((seed, sequence), Stream.VALUE, iteration, sample, (3, 2))
    among = noise.draw_many((seed, sequence), Stream.VALUE, iteration, [sample + 1, sample, 7], (3, 2))
    assert np.array_equal(alone, among[1])
    assert not np.array_equal(alone, noise.draw((seed, sequence), Stream.VIDEO, iteration, sample, (3, 2)))
    assert not np.array_equal(alone, noise.draw((seed, sequence), Stream.VALUE, iteration + 1, sample, (3, 2)))
    assert not np.array_equal(alone, noise.draw((seed + 1, sequence), Stream.VALUE, iteration, sample, (3, 2)))


def test_the_named_draws_never_change() -> None:
    """A receipt of today must replay later, so the generator behind the names is pinned by its bits."""
    draws = noise.draw((2**63 - 1, 5), Stream.VIDEO, FINAL, 2, (64,))
    assert (
        hashlib.sha256(draws.tobytes()).hexdigest()
        == "b35db78b8dc08a974fd7d843051eb8f2b97af23d17034471286b806baaea140d"
    )


def test_a_call_draws_the_noises_that_it_names() -> None:
    names = np.array([[[0, 3], [0, 4]], [[1, 0], [1, 1]]])
    inputs = {
        "noise_key": np.array([[5, 0], [6, 2]]),
        "noise_name": names,
        "mean": np.array([[[10.0]], [[0.0]]], np.float32),
        "std": np.array([[[0.0]], [[1.0]]], np.float32),
    }
    called = noise.call_noise(inputs, Stream.VIDEO, (1, 4))
    assert np.array_equal(called[0], np.full((2, 1, 4), 10.0))
    assert np.array_equal(called[1], noise.draw_many((6, 2), Stream.VIDEO, 1, [0, 1], (1, 4)))


@pytest.mark.parametrize(("fraction", "count", "elites"), [(0.14, 50, 7), (0.28, 25, 7), (0.9, 30, 27), (0.1, 15, 2)])
def test_the_elites_are_the_ceiling_of_the_decimal_fraction(fraction: float, count: int, elites: int) -> None:
    assert PlannerConfig(video_elite_fraction=fraction, num_video_samples=count).num_video_elites == elites
