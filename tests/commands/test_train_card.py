"""`wavserve train card`: the page says what bundle, recipe and results say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from wavserve.bundle import bundle
from wavserve.bundle.bundle import Bundle
from wavserve.cli import main

ROOT = Path(__file__).parents[2]
COUNT = {
    "policy": "this one",
    "suite": "libero_object",
    "starts": "shipped",
    "planner": "off",
    "num_successes": 489,
    "num_episodes": 500,
}


@pytest.fixture
def folder(tiny: Bundle, tmp_path: Path) -> Path:
    """A policy's folder: a bundle and a recipe."""
    shutil.copytree(tiny.folder, tmp_path / "policy")
    shutil.copy(ROOT / "policies" / "tiny-libero" / "recipe.toml", tmp_path / "policy")
    return tmp_path / "policy"


def written(folder: Path, capsys: pytest.CaptureFixture[str], *counts: dict[str, Any]) -> str:
    if counts:
        (folder / "results.json").write_text(json.dumps({"success": counts}))
    assert main(["train", "card", str(folder)]) == 0
    assert capsys.readouterr().out.splitlines() == [str(folder / "README.md")]
    return (folder / "README.md").read_text()


def test_the_card_has_the_facts_of_the_bundle_and_of_the_recipe(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = written(folder, capsys)
    facts = bundle.inspect(folder)
    for fact in (facts["digest"], facts["golden_digest"], facts["notes"], f"{facts['parts']['vae']['parameters']:,}"):
        assert str(fact) in text
    assert "| action | 12000 | 60 | 0.001 |" in text
    assert "make train-tiny-libero" in text
    assert "Not measured yet." in text
    assert "Never run it on a robot" in text


def test_the_card_does_not_change_the_digest(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = bundle.digest(folder)
    written(folder, capsys, COUNT)
    assert bundle.digest(folder) == before
    bundle.load(folder)


def test_success_has_an_interval(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = written(
        folder, capsys, COUNT, {**COUNT, "policy": "without pictures", "num_successes": 10, "num_episodes": 30}
    )
    assert "| this one | libero_object | shipped | off | 97.8 (96.1 to 98.8), n 500 |" in text
    assert "| without pictures | libero_object | shipped | off | 33.3 (19.2 to 51.2), n 30 |" in text
    assert "Not measured yet." not in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_successes": 501}, "num_successes: expected 0 to num_episodes, 500, and an episode, got 501"),
        ({"num_successes": 0, "num_episodes": 0}, "and an episode, got 0"),
        ({"rate": 0.9}, "rate: expected no such key"),
        ({"num_successes": "many"}, "num_successes: expected a whole number, got 'many'"),
    ],
)
def test_wrong_results_are_refused(
    change: dict[str, Any], words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "results.json").write_text(json.dumps({"success": [{**COUNT, **change}]}))
    assert main(["train", "card", str(folder)]) == 1
    assert words in capsys.readouterr().err
    assert not (folder / "README.md").exists()


def test_a_folder_without_a_recipe_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "recipe.toml").unlink()
    assert main(["train", "card", str(folder)]) == 1
    assert "recipe.toml: expected a TOML file" in capsys.readouterr().err
