"""The stages of training at the command line: what is refused, and how."""

from __future__ import annotations

from pathlib import Path

import pytest

from wavserve.cli import main

RECIPE = str(Path(__file__).parents[2] / "policies" / "tiny-libero" / "recipe.toml")


def train(action: str, folder: Path, *options: str) -> int:
    return main(["train", action, "--recipe", RECIPE, "--folder", str(folder / "run"), *options])


def test_a_data_set_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("vae", tmp_path, "--data", str(tmp_path / "none")) == 1
    assert "expected the folder of a data set, got none" in capsys.readouterr().err


def test_a_recipe_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "bundle", "--recipe", "none.toml", "--folder", str(tmp_path), "--out", "new"]) == 1
    assert "none.toml: expected a TOML file" in capsys.readouterr().err


def test_a_bundle_needs_a_trained_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("bundle", tmp_path, "--out", str(tmp_path / "bundle")) == 1
    assert "expected a checkpoint, got none; train the stages first" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


def test_a_gpu_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert train("vae", tmp_path, "--data", str(tmp_path), "--device", "cuda") == 1
    assert "--device: expected cpu, as torch finds no GPU, got cuda" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong", [("--threads", "0"), ("--episodes", "-1"), ("--checkpoint-s", "nan"), ("--device", "tpu")]
)
def test_numbers_that_make_no_sense_are_wrong_usage(
    wrong: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        train("vae", tmp_path, "--data", str(tmp_path), *wrong)
    assert ended.value.code == 2
    assert wrong[0] in capsys.readouterr().err
