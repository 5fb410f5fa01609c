"""Every fixture recorded from the released code, through the plain and the fast paths and the service's planner."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from wavserve.app.parity import PATH, run
from wavserve.core.errors import BundleError
from wavserve.models.parity.fixtures import Check, config_from_fixture, planner_config, read_fixture
from wavserve.models.parity.parity import COMPARISONS, check_models
from wavserve.models.parity.subject import compared

BOTH = ("01", "02", "03", "04", "05", "06")


@pytest.fixture(scope="module")
def checks(parity_folder: Path) -> list[Check]:
    return run(parity_folder)


@pytest.mark.parametrize("fixture", COMPARISONS)
def test_fixture_agrees_within_the_tolerance(checks: list[Check], fixture: str) -> None:
    of_fixture = [check for check in checks if check.fixture == fixture and check.path != PATH]

    assert of_fixture
    assert [check for check in of_fixture if not check.ok] == []


@pytest.mark.parametrize("number", BOTH)
def test_plain_and_fast_are_both_compared(checks: list[Check], number: str) -> None:
    assert {check.path for check in checks if check.fixture.startswith(number)} == {"plain", "fast"}


def test_plans_agree_with_those_of_the_released_model(checks: list[Check]) -> None:
    planned = [check for check in checks if check.path == PATH]

    assert [check for check in planned if not check.ok] == []
    assert {check.fixture for check in planned} == {"08_plan_official", "09_plan_corrected"}
    assert {"action", "per_view.action", "snr.1", "video_std.1", "per_view.value_mean"} <= {c.tensor for c in planned}


@pytest.fixture
def copy(parity_folder: Path, tmp_path: Path) -> Path:
    """A copy of the fixtures for one forward of each model, for tests to damage."""
    for stem in ("02_video_forward", "03_value_forward", "04_action_forward", "weights"):
        for path in parity_folder.glob(f"{stem}.*"):
            shutil.copy(path, tmp_path)
    shutil.copy(parity_folder / "config.json", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "fixture"),
    [
        ("transformer_blocks.1.attn1.norm_k.weight", "02_video_forward"),
        ("value_blocks.2.ff.net.2.bias", "03_value_forward"),
        ("action_blocks.3.attn3.to_v.weight", "04_action_forward"),
    ],
)
def test_changed_weights_fail_the_checks_of_both_paths(copy: Path, name: str, fixture: str) -> None:
    tensors = load_file(copy / "weights.safetensors")
    tensors[name] = tensors[name] * 1.05
    save_file(tensors, copy / "weights.safetensors")

    failed = [check for check in check_models(copy) if not check.ok]

    assert {check.path for check in failed if check.fixture == fixture} == {"plain", "fast"}


def test_a_missing_fixture_is_skipped(copy: Path) -> None:
    (copy / "04_action_forward.safetensors").unlink()

    assert {check.fixture for check in check_models(copy)} == {"02_video_forward", "03_value_forward"}


def test_a_missing_fixture_that_another_builds_on_is_an_error(copy: Path) -> None:
    (copy / "02_video_forward.safetensors").unlink()

    with pytest.raises(BundleError, match="02_video_forward"):
        check_models(copy)


def test_the_error_names_an_unreadable_fixture(copy: Path) -> None:
    (copy / "03_value_forward.safetensors").write_bytes(b"nothing")

    with pytest.raises(BundleError, match="03_value_forward"):
        check_models(copy)


def test_the_error_names_a_missing_tensor(parity_folder: Path) -> None:
    fixture = read_fixture(parity_folder, "11_norm_eps")
    assert fixture is not None

    with pytest.raises(BundleError, match="expected a tensor y"):
        fixture["y"]


def test_elites_are_compared_as_sets_and_numbers_by_their_largest_error() -> None:
    assert compared("f", "plain", "elites", torch.tensor([3, 1]), torch.tensor([1, 3])).ok
    assert compared("f", "plain", "elites", torch.tensor([3, 2]), torch.tensor([1, 3])).error == 2
    assert compared("f", "plain", "x", torch.tensor([1.0, 2.5]), torch.tensor([1.0, 2.0])).error == 0.5
    assert not compared("f", "plain", "x", torch.tensor([float("nan")]), torch.tensor([0.0])).ok
    with pytest.raises(BundleError, match=r"expected shape \(2,\), got \(1,\)"):
        compared("f", "plain", "x", torch.zeros(1), torch.zeros(2))


def test_a_configuration_of_other_sizes_is_read(parity_folder: Path) -> None:
    config = json.loads((parity_folder / "config.json").read_text())
    config |= {"n_view": 3, "n_prev": 2, "latent_h": 5, "action_chunk": 54, "value_chunk": 50, "text_len": 9}
    config["model_kwargs"] |= {"attention_head_dim": 10, "cross_attention_dim": 40, "value_attention_head_dim": 14}
    config["model_kwargs"] |= {"action_in_channels": 28, "action_out_channels": 28, "value_in_channels": 17}

    ours = config_from_fixture(config)

    assert (ours.num_views, ours.action_chunk, ours.value_chunk, ours.num_prompt) == (3, 54, 50, 9)
    assert (ours.latent.num_memory_frames, ours.latent.height) == (2, 5)
    assert (ours.model.video.width, ours.model.value.width, ours.model.action.width) == (40, 28, 32)
    assert (ours.model.action.in_channels, ours.model.value.out_channels) == (28, 17)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("model_kwargs", "patch_size", 2),
        ("model_kwargs", "cross_attention_dim", 60),
        ("defaults", "learnable_value_state", True),
    ],
)
def test_unsupported_settings_are_refused(parity_folder: Path, section: str, key: str, value: object) -> None:
    config = json.loads((parity_folder / "config.json").read_text())
    config[section][key] = value

    with pytest.raises(BundleError, match=f"{key}: expected .* got {value}"):
        config_from_fixture(config)


def test_the_planner_settings_come_from_the_fixture(parity_folder: Path) -> None:
    fixture = read_fixture(parity_folder, "09_plan_corrected")
    assert fixture is not None

    config = planner_config(fixture, "paper")

    assert (config.num_iterations, config.num_video_samples, config.num_value_samples) == (2, 6, 3)
    assert (config.num_video_elites, config.num_value_elites) == (3, 5)
