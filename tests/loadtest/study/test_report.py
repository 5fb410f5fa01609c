"""The tables of a study."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from loadtest.study.cost import CostOfK
from loadtest.study.frames import Likeness
from loadtest.study.plan import OFF, Budget
from loadtest.study.ranks import Bin, Interval, Verdict
from loadtest.study.report import Findings, Part, as_table, markdown
from loadtest.study.spread import Spread, Spreads
from tests.clients.libero.runs import PAPER, example_config, example_run
from wavserve.clients.libero.cells import Cell
from wavserve.clients.libero.report.statistics import Pairs, mcnemar, paired_difference
from wavserve.clients.libero.report.table import difference_text

BLIND = Cell(name="off-blind", planner={"mode": "off"}, blind=True)


def mostly(cell: Cell, suite: str, task: int, state: int) -> bool:
    """`off` fails at three starts, `paper` at none, the blind one at all."""
    return not cell.blind and (cell.name == "paper" or (task, state) not in {(0, 0), (0, 1), (1, 3)})


@pytest.fixture
def findings() -> Findings:
    config = example_config(suites=("libero_object",), cells=(OFF, PAPER, BLIND))
    none = Interval(0.01, -0.1, 0.12, 30)
    verdicts = (Verdict("mean", none, none, none, 0.5, 0.02), Verdict("paper", None, None, None, math.nan, 0.02))
    parts = (Part("Headline", example_run(config, mostly), "paper"),)
    return Findings(
        name="Study of x",
        budget=Budget("d", 12.34, ("m5",), 8),
        parts=parts,
        spreads=Spreads(40, 1, 0.0805, (Spread("video", 0.0043, 0.0061, 0.12), Spread("action", 0.0616, 0.0, 0.0))),
        verdicts=verdicts,
        bins=(Bin(-0.5, 0.31, 0.2, 0.75, 8),),
        likenesses=(Likeness("wrist", 21.26, 19.04, 40),),
        costs=(CostOfK(3, 100.4, 120.6, 812.0),),
    )


def test_every_cell_is_held_against_no_planning(findings: Findings) -> None:
    lines = markdown(findings).splitlines()
    assert "predicted: 12.3 hours; dropped: m5; N at most 8." in lines
    [paper] = [line for line in lines if line.startswith("| paper | paper K=5")]
    pairs = Pairs(both=5, only_a=3)
    assert difference_text(paired_difference(pairs)) in paper
    assert f"| {mcnemar(pairs):.3g} | 80 |" in paper
    [off] = [line for line in lines if line.startswith("| off |")]
    assert "62.5 (" in off
    [blind] = [line for line in lines if line.startswith("| off-blind |")]
    assert "| off, grey pictures | 0.0 (" in blind
    assert "Chosen: `paper`." in lines
    assert any("+0.010 (-0.100 to +0.120), scenes 30" in line for line in lines)
    assert "| paper | - | - | - | - |" in lines, "what nothing tells"
    assert "Spread of returns within a scene: 0.020." in lines
    assert "| -0.500 | 0.310 | 0.200 | 75 | 8 |" in lines
    assert "| video | 0.0043 | 0.0061 | 0.1200 |" in lines
    assert "| action | 0.0616 | 0.0000 | 0.0000 |" in lines
    error = "The actions' mean absolute error to the expert's: 0.0805."
    assert f"40 held-out observations, num_video_steps 1. {error}" in lines
    assert "| wrist | 21.3 | 19.0 | 40 |" in lines
    assert "| 3 | 100 | 121 | 812 |" in lines


def test_planning_is_held_against_its_controls(findings: Findings) -> None:
    """`paper` succeeds at all of eight starts, `random_scores` where `off` does."""
    random_scores = Cell(name="random-scores", planner={"mode": "random_scores"})
    config = example_config(suites=("libero_object",), cells=(OFF, PAPER, random_scores, BLIND))
    controlled = replace(findings, parts=(Part("Headline", example_run(config, mostly)),))
    pairs = Pairs(both=5, only_a=3)
    row = f"| paper minus random-scores | {difference_text(paired_difference(pairs))} | {mcnemar(pairs):.3g} |"
    assert row in markdown(controlled).splitlines()
    [part] = as_table(controlled)["parts"]
    [control] = part["paper_minus"]
    assert (control["name"], control["difference"]["value"]) == ("random-scores", pytest.approx(3 / 8))
    assert control["mcnemar_p"] == mcnemar(pairs)
    assert as_table(findings)["parts"][0]["paper_minus"] == []


def test_programs_read_the_same_numbers(findings: Findings, tmp_path: Path) -> None:
    table = json.loads(json.dumps(as_table(findings), allow_nan=False))
    [part] = table["parts"]
    cells = {cell["name"]: cell for cell in part["cells"]}
    assert cells["paper"]["success"]["num"] == 8
    assert cells["paper"]["minus_off"]["value"] == pytest.approx(3 / 8)
    assert cells["off"]["minus_off"] is None
    assert cells["off"]["by_task"] == {"0": [2, 4], "1": [3, 4]}
    assert [verdict["over_scenes"] for verdict in table["values"]] == [0.5, None]
    assert table["spreads"]["spreads"][1] == {"varied": "action", "actions": 0.0616, "score": 0.0, "future": 0.0}
    assert table["costs"] == [{"k": 3, "plan_ms_p50": 100.4, "plan_ms_p95": 120.6, "peak_mb": 812.0}]
