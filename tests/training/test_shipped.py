"""The trained policy that ships: what it is, how well it acts on recorded observations that it has not seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.training.plans import first, served_actions, trained_actions
from wavserve.bundle import bundle
from wavserve.commands.train_card import card_of
from wavserve.core.normalise import action_range
from wavserve.core.types import Array
from wavserve.training import held_out
from wavserve.training.held_out import HeldOut, action_error, baselines

SHIPPED = Path(__file__).parents[2] / "policies" / "tiny-libero"
FILE = SHIPPED / "held-out.safetensors"
MAX_BYTES = 25 * 1000**2

pytestmark = [
    pytest.mark.skipif(not (SHIPPED / bundle.POLICY).exists(), reason="policies/tiny-libero has no trained bundle yet"),
    pytest.mark.skipif(not FILE.exists(), reason="policies/tiny-libero has no held-out.safetensors yet"),
]


@pytest.fixture(scope="module")
def observations() -> HeldOut:
    return held_out.read(FILE)


@pytest.fixture(scope="module")
def served(observations: HeldOut) -> Array:
    return served_actions(SHIPPED, observations)


def test_it_says_that_it_is_trained_and_for_which_robot() -> None:
    opened = bundle.load(SHIPPED)
    assert (opened.spec.name, opened.spec.untrained, opened.spec.embodiment) == ("tiny-libero", False, "libero")
    assert opened.spec.value_norm is not None
    assert opened.golden is not None


def test_it_is_small_enough_for_git() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()) <= MAX_BYTES


def test_its_model_card_is_what_the_command_writes() -> None:
    assert (SHIPPED / "README.md").read_text(encoding="utf-8") == card_of(SHIPPED), "run `wavserve train card`"


def test_its_error_on_held_out_observations_is_half_of_the_better_baselines(
    observations: HeldOut, served: Array
) -> None:
    norm = bundle.load(SHIPPED).spec.action.vector.norm
    least = min(action_error(actions, observations, norm) for actions in baselines(observations).values())
    assert action_error(served, observations, norm) <= least / 2


def test_served_actions_are_those_of_the_training_code(observations: HeldOut, served: Array) -> None:
    ours = trained_actions(SHIPPED, observations)
    span = action_range(bundle.load(SHIPPED).spec.action.vector.norm)
    np.testing.assert_allclose(served / span, ours / span, rtol=0, atol=1e-4)


def test_so_are_those_of_futures_that_are_denoised_further(observations: HeldOut) -> None:
    few = first(observations, 3)
    ours, served = trained_actions(SHIPPED, few, num_video_steps=3), served_actions(SHIPPED, few, num_video_steps=3)
    span = action_range(bundle.load(SHIPPED).spec.action.vector.norm)
    np.testing.assert_allclose(served / span, ours / span, rtol=0, atol=1e-4)
    assert np.abs(ours - trained_actions(SHIPPED, few)).max() > 1e-3
