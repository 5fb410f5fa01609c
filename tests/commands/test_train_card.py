"""`wavserve train card`: the page says what bundle, recipe and results say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from loadtest.study.plan import BLIND, OFF, Budget
from loadtest.study.report import Findings, Part, as_table
from tests.clients.libero.runs import PAPER, example_config, example_run
from wavserve.bundle import bundle
from wavserve.bundle.bundle import Bundle
from wavserve.cli import main
from wavserve.clients.libero.cells import Cell
from wavserve.training.recipe import load_recipe

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tiny: Bundle, tmp_path: Path) -> Path:
    """A policy's folder: a bundle and a recipe."""
    shutil.copytree(tiny.folder, tmp_path / "policy")
    shutil.copy(ROOT / "policies" / "tiny-libero" / "recipe.toml", tmp_path / "policy")
    return tmp_path / "policy"


def study(folder: Path) -> dict[str, Any]:
    """Results as a study writes them: `off` fails at three of eight starts, `paper` at none."""
    config = example_config(suites=("libero_object",), cells=(OFF, PAPER, BLIND))

    def mostly(cell: Cell, suite: str, task: int, state: int) -> bool:
        return cell.name == "paper" or (task, state) not in {(0, 0), (0, 1), (1, 3)}

    part = Part("Shipped starts", example_run(config, mostly))
    budget = Budget("d", 12.3, (), 8, policy_digest=bundle.digest(folder))
    return as_table(Findings("Study of x", budget, (part,)))


def written(folder: Path, capsys: pytest.CaptureFixture[str], results: dict[str, Any] | None = None) -> str:
    if results is not None:
        (folder / "results.json").write_text(json.dumps(results))
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
    action = load_recipe(folder / "recipe.toml").action.optimisation
    assert f"| action | {action.num_steps} | {action.batch_size} | {action.learning_rate:g} |" in text
    assert "policies/train.sh policies/tiny-libero SUITE FOLDER" in text
    assert "Not measured yet." in text
    assert "Never run it on a robot" in text


def test_the_card_does_not_change_the_digest(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = bundle.digest(folder)
    written(folder, capsys, study(folder))
    assert bundle.digest(folder) == before
    bundle.load(folder)


def test_success_is_what_a_study_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = written(folder, capsys, study(folder)).splitlines()
    assert "| Shipped starts | off | off | 62.5 (30.6 to 86.3), n 8 |  |" in lines
    [paper] = [line for line in lines if line.startswith("| Shipped starts | paper | paper K=5")]
    assert "| 100.0 (67.6 to 100.0), n 8 | +37.5 (" in paper
    [blind] = [line for line in lines if line.startswith("| Shipped starts | off-blind |")]
    assert "| off, grey pictures |" in blind
    assert "Not measured yet." not in lines


@pytest.mark.parametrize(
    ("results", "words"),
    [
        ({}, "results.json: parts: expected a value, got nothing"),
        ({"parts": [{"title": "Shipped", "cells": [{"name": "off"}]}]}, "parts[0].cells[0].success: expected a value"),
    ],
)
def test_another_file_of_results_is_refused(
    results: dict[str, Any], words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "results.json").write_text(json.dumps(results))
    assert main(["train", "card", str(folder)]) == 1
    assert words in capsys.readouterr().err
    assert not (folder / "README.md").exists()


def test_results_of_another_policy_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As after a policy was trained anew into its folder."""
    results = study(folder)
    results["budget"]["policy_digest"] = "b551014e"
    (folder / "results.json").write_text(json.dumps(results))
    assert main(["train", "card", str(folder)]) == 1
    expected = f"results.json: expected results of this policy, {bundle.digest(folder)}, got those of b551014e"
    assert expected in capsys.readouterr().err
    assert not (folder / "README.md").exists()


def test_a_folder_without_a_recipe_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "recipe.toml").unlink()
    assert main(["train", "card", str(folder)]) == 1
    assert "recipe.toml: expected a TOML file" in capsys.readouterr().err
