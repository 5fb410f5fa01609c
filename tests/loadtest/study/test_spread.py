"""What moves a plan: each noise moves what it can reach, and nothing else."""

from __future__ import annotations

import fnmatch
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from loadtest.study.spread import HELD_OUT_FILE, Spread, Spreads, measured, spreads_on_file
from tests.training.plans import first
from wavserve.bundle import bundle
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


def cut(folder: Path, *patterns: str) -> None:
    """Zeroes weights: what goes through them changes nothing."""
    weights = load_file(folder / WEIGHTS)
    cut = {name for pattern in patterns for name in fnmatch.filter(weights, pattern)}
    assert cut
    save_file({n: torch.zeros_like(t) if n in cut else t for n, t in weights.items()}, folder / WEIGHTS)


def by_noise(spreads: Spreads) -> dict[str, Spread]:
    return {each.varied: each for each in spreads.spreads}


def test_each_noise_moves_what_it_can_reach(few: HeldOut) -> None:
    found = measured(SHIPPED, few)
    spreads = by_noise(found)
    assert found.num_observations == 2
    assert list(spreads) == ["video", "value", "action", "all"]
    assert all(each.actions > ROUNDING for each in spreads.values())
    assert [name for name, each in spreads.items() if each.score > ROUNDING] == ["video", "value", "all"]
    assert [name for name, each in spreads.items() if each.future > ROUNDING] == ["video", "all"]


def test_an_action_expert_that_is_deaf_is_moved_by_its_own_noise_alone(folder: Path, few: HeldOut) -> None:
    cut(folder, "action_blocks.*.attn2.to_out.*", "action_blocks.*.attn3.to_out.*")
    spreads = by_noise(measured(folder, few))
    assert max(spreads["video"].actions, spreads["value"].actions) < ROUNDING < spreads["action"].actions
    assert spreads["action"].actions == pytest.approx(spreads["all"].actions, rel=1e-4)
    assert spreads["video"].score > ROUNDING, "the value expert still reads futures"


def test_a_value_expert_that_is_deaf_scores_all_futures_alike(folder: Path, few: HeldOut) -> None:
    cut(folder, "value_blocks.*.attn2.to_out.*")
    spreads = by_noise(measured(folder, few))
    assert spreads["video"].score < ROUNDING < spreads["value"].score


def test_actions_that_are_their_noise_have_its_deviation_in_halves_of_the_range(folder: Path, few: HeldOut) -> None:
    """An action expert that predicts nothing leaves standard normals in normalised units, where a half of the range is
    1. The mean deviation of eight of them is 0.965 (their c4)."""
    cut(folder, "action_proj_out.*")
    found = measured(folder, few)
    assert by_noise(found)["action"].actions == pytest.approx(0.965, rel=0.1)


def test_futures_are_denoised_as_the_policy_does(folder: Path, few: HeldOut) -> None:
    file = folder / bundle.POLICY
    policy = json.loads(file.read_text())
    policy["planner"]["num_video_steps"] = 3
    file.write_text(json.dumps(policy))
    found = measured(folder, few)
    assert found.num_video_steps == 3
    assert found == measured(SHIPPED, few, num_video_steps=3)
    assert found != measured(SHIPPED, few)


def test_it_is_measured_once_in_a_study(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "spread.json"
    found = spreads_on_file(file, folder)
    assert found is not None
    (folder / WEIGHTS).unlink()
    assert spreads_on_file(file, folder) == found


def test_a_policy_without_held_out_observations_has_none(folder: Path, tmp_path: Path) -> None:
    (folder / HELD_OUT_FILE).unlink()
    assert spreads_on_file(tmp_path / "spread.json", folder) is None
