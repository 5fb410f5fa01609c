"""The reward's terms, their weights, and the return."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.training.demos.test_recording import CLEAN, recorded
from wavserve.training.demos.reward import (
    DISCOUNT,
    WEIGHTS,
    Track,
    image_error,
    image_similarity,
    returns,
    reward_terms,
    weighted,
)


def track(num_steps: int = 10) -> Track:
    """A hand that comes to an object, and lies there while the pictures grow alike."""
    way = np.linspace(0.3, 0.0, num_steps + 1)[:, None] * [1.0, 0.0, 0.0]
    return Track(
        hand=way,
        object=np.zeros((num_steps + 1, 3)),
        goal=np.full((num_steps + 1, 3), [0.0, 0.2, 0.0]),
        executed_action=np.zeros((num_steps, 7), np.float32),
        solved=np.zeros(num_steps, bool),
        picture_steps=np.array([0, 4, 8]),
        image_errors=np.array([0.1, 0.05, 0.2]),
        image_similarities=np.array([0.5, 0.75, 0.4]),
    )


def term(name: str, of: Track) -> list[float]:
    return [round(float(each), 4) for each in reward_terms(of)[:, list(WEIGHTS).index(name)]]


def test_the_pictures_terms_count_from_the_first_picture_and_until_the_next_one() -> None:
    assert term("image_mse", track()) == [0.0] * 3 + [0.5] * 4 + [0.0] * 3
    assert term("image_ssim", track()) == [0.0] * 3 + [0.5] * 4 + [0.0] * 3


def test_the_hand_and_the_object_come_nearer() -> None:
    near = term("hand", track())
    assert near == sorted(near)
    assert near[-1] == 1.0
    assert term("object", track()) == [round(1 - float(np.tanh(1.0)), 4)] * 10


def test_a_solved_task_needs_no_hand_at_the_object() -> None:
    solved = track()
    solved.solved[3:] = True
    assert term("hand", solved)[3:] == [1.0] * 7
    assert term("solved", solved) == [0.0] * 3 + [1.0] * 7


def test_fast_motion_and_sudden_commands_cost() -> None:
    assert WEIGHTS["speed"] < 0
    assert WEIGHTS["jerk"] < 0
    assert term("speed", track())[0] == 1.0, "3 cm a step is more than the arm can do"
    jerky = track()
    jerky.executed_action[5, :6] = 1.0
    assert term("jerk", jerky) == [0.0] * 5 + [1.0, 1.0] + [0.0] * 3


def test_a_reward_is_the_weighted_sum_and_stays_in_its_range() -> None:
    terms = np.random.default_rng(0).uniform(0, 1, (50, len(WEIGHTS))).astype(np.float32)
    expected = sum(weight * terms[:, i] for i, weight in enumerate(WEIGHTS.values()))
    assert np.allclose(weighted(terms), expected, atol=1e-6)
    assert sum(weight for weight in WEIGHTS.values() if weight > 0) == pytest.approx(1.0)


def test_a_return_is_the_discounted_mean_with_the_last_reward_for_ever() -> None:
    reward = np.array([0.0, 0.5, 1.0], np.float32)
    endless = np.concatenate([reward, np.full(3000, 1.0)])
    weights = (1 - DISCOUNT) * DISCOUNT ** np.arange(3000)
    expected = [float((weights * endless[step : step + 3000]).sum()) for step in range(3)]
    assert np.allclose(returns(reward), expected, atol=1e-6)


def test_a_success_returns_more_than_a_failure_however_short_it_is() -> None:
    success, failure = recorded(), recorded(replace(CLEAN, max_steps=60))
    assert success.info.success
    assert not failure.info.success
    assert success.returns[-1] > 0.8
    assert success.returns[0] > failure.returns[0]
    assert np.corrcoef(np.arange(len(success.returns)), success.returns)[0, 1] > 0.9, "it grows along a success"


def test_equal_pictures_are_most_alike() -> None:
    rng = np.random.default_rng(0)
    one = rng.integers(0, 255, (32, 32, 3), np.uint8)
    near = np.clip(one + rng.integers(-9, 9, one.shape), 0, 255).astype(np.uint8)
    far = rng.integers(0, 255, one.shape, np.uint8)
    assert image_similarity([one], [one]) == pytest.approx(1.0)
    assert image_similarity([one], [near]) > image_similarity([one], [far]) > -1.0
    assert image_error([one, one], [one, one]) == 0.0
    assert 0.0 < image_error([one], [near]) < image_error([one], [far])
    assert image_error([np.zeros_like(one)], [np.full_like(one, 255)]) == pytest.approx(1.0)


def test_structural_similarity_is_that_of_its_definition() -> None:
    rng = np.random.default_rng(1)
    one, other = (rng.integers(0, 255, (9, 10, 3), np.uint8) for _ in range(2))
    greys = [each.mean(-1) / 255 for each in (one, other)]
    values = []
    for row in range(3):
        for column in range(4):
            a, b = (grey[row : row + 7, column : column + 7].ravel() for grey in greys)
            covariance = ((a - a.mean()) * (b - b.mean())).mean()
            light = (2 * a.mean() * b.mean() + 1e-4) / (a.mean() ** 2 + b.mean() ** 2 + 1e-4)
            values.append(light * (2 * covariance + 9e-4) / (a.var() + b.var() + 9e-4))
    assert image_similarity([one], [other]) == pytest.approx(np.mean(values))
