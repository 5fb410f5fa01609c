"""What moves a plan: each noise moves what it can reach, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from loadtest.study.spread import HELD_OUT_FILE, Spreads, measured, spreads_on_file
from tests.training.plans import first
from wavserve.training.held_out import HeldOut, read, write

SHIPPED = Path(__file__).parents[3] / "policies" / "tiny-libero"
FILE = SHIPPED / HELD_OUT_FILE
ROUNDING = 1e-6
"""of rows of one batch"""
WEIGHTS = Path("transformer") / "diffusion_pytorch_model.safetensors"

pytestmark = pytest.mark.skipif(not FILE.exists(), reason="policies/tiny-libero has no trained bundle yet")


@pytest.fixture(scope="module")
def few() -> HeldOut:
    return first(read(FILE), 2)


@pytest.fixture
def folder(few: HeldOut, tmp_path: Path) -> Path:
    """The shipped policy, with a few observations."""
    made = tmp_path / "policy"
    shutil.copytree(SHIPPED, made)
    write(few, made / HELD_OUT_FILE)
    return made


def cut(folder: Path, *attentions: str) -> None:
    """Makes experts deaf: what these attentions read changes nothing."""
    weights = load_file(folder / WEIGHTS)
    for name, tensor in weights.items():
        if any(name.startswith(expert) and attention in name for expert, attention in map(str.split, attentions)):
            weights[name] = torch.zeros_like(tensor)
    save_file(weights, folder / WEIGHTS)


def by_noise(spreads: Spreads) -> dict[str, tuple[float, float | None]]:
    return {each.varied: (each.actions, each.score) for each in spreads.spreads}


def test_the_noise_of_the_action_comes_after_the_score(few: HeldOut) -> None:
    found = measured(SHIPPED, few)
    spreads = by_noise(found)
    assert list(spreads) == ["video", "value", "action", "all"]
    assert all(actions > 0 for actions, _ in spreads.values())
    assert [score is None for _, score in spreads.values()] == [False, False, True, True]
    assert (found.num_observations, found.num_video_steps) == (2, 1), "the policy's own"


def test_futures_that_are_denoised_further_differ_more(few: HeldOut) -> None:
    scores = [by_noise(measured(SHIPPED, few, num_video_steps=steps))["video"][1] or 0.0 for steps in (1, 4)]
    assert scores[1] > scores[0] > 0.0


def test_an_action_expert_that_is_deaf_is_moved_by_its_own_noise_alone(folder: Path, few: HeldOut) -> None:
    cut(folder, "action_blocks attn2.to_out", "action_blocks attn3.to_out")
    spreads = by_noise(measured(folder, few))
    assert max(spreads["video"][0], spreads["value"][0]) < ROUNDING < spreads["action"][0]
    assert spreads["action"][0] == pytest.approx(spreads["all"][0], rel=1e-4)
    assert (spreads["video"][1] or 0.0) > ROUNDING, "the value expert still reads futures"


def test_a_value_expert_that_is_deaf_scores_all_futures_alike(folder: Path, few: HeldOut) -> None:
    cut(folder, "value_blocks attn2.to_out")
    spreads = by_noise(measured(folder, few))
    assert spreads["video"][1] == pytest.approx(0.0, abs=ROUNDING)
    assert (spreads["value"][1] or 0.0) > ROUNDING


def test_it_is_measured_once_in_a_study(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "spread.json"
    found = spreads_on_file(file, folder)
    assert found is not None
    (folder / WEIGHTS).unlink()
    assert spreads_on_file(file, folder) == found


def test_a_policy_without_held_out_observations_has_none(folder: Path, tmp_path: Path) -> None:
    (folder / HELD_OUT_FILE).unlink()
    assert spreads_on_file(tmp_path / "spread.json", folder) is None
