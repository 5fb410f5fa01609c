"""The tables of a study: success, paired differences, what the value is worth, time and memory. Markdown and JSON.

Counts and formats. Runs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from loadtest.study.cost import CostOfK
from loadtest.study.frames import Likeness
from loadtest.study.plan import OFF, Budget, described
from loadtest.study.ranks import Bin, Interval, Verdict
from loadtest.study.spread import Spreads
from wavserve.clients.libero.cells import Cell
from wavserve.clients.libero.records import Run
from wavserve.clients.libero.report.statistics import Pairs, mcnemar, paired_difference
from wavserve.clients.libero.report.summary import Summary, by_start, cell_words, pairs_of
from wavserve.clients.libero.report.table import difference_text, markdown_table, rate_text

CONTROLS = ("published", "random-scores", "fixed-shrink")
"""Cells that `paper` is held against: what differs is the scores, or all that they choose."""
_NOTE = (
    "Success in %, with Wilson's 95 % interval. Differences are of equal starts and seeds, in points, with Tango's "
    "95 % interval; p is McNemar's, exact. Plan: median over episodes of an episode's median, in ms, on this machine."
)


@dataclass(frozen=True, slots=True)
class Part:
    """A phase of the study, with all of its cells and baselines on the same starts."""

    title: str
    run: Run
    chosen: str = ""
    """the cell that the next phase takes"""


@dataclass(frozen=True, slots=True)
class Findings:
    """All that a study found so far."""

    name: str
    budget: Budget
    parts: tuple[Part, ...]
    chosen: str = ""
    """the cell that an earlier screen chose; empty: this study's screen did"""
    spreads: Spreads | None = None
    verdicts: tuple[Verdict, ...] = ()
    bins: tuple[Bin, ...] = ()
    """of the mean score"""
    likenesses: tuple[Likeness, ...] = ()
    costs: tuple[CostOfK, ...] = ()


def markdown(findings: Findings) -> str:
    """The tables, for people."""
    lines = [f"# {findings.name}", "", described(findings.budget) + ".", "", _NOTE]
    if findings.chosen:
        lines += ["", f"Options of the headline: those of `{findings.chosen}`, which an earlier screen chose."]
    for part in findings.parts:
        lines += ["", f"## {part.title}", "", *_success(part), *_against_controls(part)]
        if part.chosen:
            lines += ["", f"Chosen: `{part.chosen}`."]
    if findings.spreads:
        lines += ["", "## What moves a plan", "", *_spreads(findings.spreads)]
    if findings.verdicts:
        lines += ["", "## What the value is worth", "", *_worth(findings.verdicts)]
    if findings.bins:
        lines += ["", "## Predicted value against achieved return", "", *_calibration(findings.bins)]
    if findings.likenesses:
        lines += ["", "## Imagined frames against true ones", "", *_likenesses(findings.likenesses)]
    if findings.costs:
        lines += ["", "## Time and memory against K", "", *_costs(findings.costs)]
    return "\n".join(lines) + "\n"


def as_table(findings: Findings) -> dict[str, Any]:
    """The numbers, for programs."""
    return {
        "name": findings.name,
        "budget": asdict(findings.budget),
        "chosen": findings.chosen,
        "parts": [
            {
                "title": part.title,
                "chosen": part.chosen,
                "cells": [_cell_facts(part, cell) for cell in _cells(part)],
                "paper_minus": [_control_facts(part, *pair) for pair in _controls(part)],
            }
            for part in findings.parts
        ],
        "spreads": None if findings.spreads is None else asdict(findings.spreads),
        "values": [_finite(asdict(verdict)) for verdict in findings.verdicts],
        "calibration": [asdict(each) for each in findings.bins],
        "imagined": [asdict(each) for each in findings.likenesses],
        "costs": [asdict(cost) for cost in findings.costs],
    }


def _finite(table: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: a number that nothing tells is null."""
    return {key: None if isinstance(each, float) and math.isnan(each) else each for key, each in table.items()}


def plan_ms(run: Run, cell: Cell) -> float:
    """Median over the cell's episodes of an episode's median plan; NaN where nothing was planned."""
    found = sorted(
        one.wall["plan_ms_p50"] for one in run.records if one.cell == cell.name and "plan_ms_p50" in one.wall
    )
    return found[len(found) // 2] if found else math.nan


def successes(run: Run) -> dict[str, int]:
    """Of each cell."""
    return {cell.name: sum(one.success for one in run.records if one.cell == cell.name) for cell in run.config.cells}


def _cells(part: Part) -> Sequence[Cell]:
    return part.run.config.cells


def _success(part: Part) -> list[str]:
    rows = (_row(part, cell) for cell in _cells(part))
    return markdown_table(("cell", "planner", "success", "minus off", "p", "plan ms"), rows)


def _row(part: Part, cell: Cell) -> list[str]:
    summary, pairs = Summary.of(part.run), _pairs(part.run, cell)
    [suite] = part.run.config.suites
    ms = plan_ms(part.run, cell)
    row = [cell.name, cell_words(cell) if cell.planner else "-", rate_text(summary.rate(cell, suite))]
    if cell.name == OFF.name:
        row += ["", ""]
    else:
        row += [difference_text(summary.difference(cell, OFF).suites[suite]), f"{mcnemar(pairs):.3g}"]
    return [*row, "-" if math.isnan(ms) else f"{ms:.0f}"]


def _pairs(run: Run, cell: Cell, reference: Cell = OFF) -> Pairs:
    summary, [suite] = Summary.of(run), run.config.suites
    return pairs_of(by_start(summary.by_cell[cell.name]), by_start(summary.by_cell[reference.name]), suite)


def _controls(part: Part) -> list[tuple[Cell, Cell]]:
    """The cell `paper` with each of its controls, where a phase has them."""
    cells = {cell.name: cell for cell in _cells(part)}
    return [(cells["paper"], cells[name]) for name in CONTROLS if "paper" in cells and name in cells]


def _against_controls(part: Part) -> list[str]:
    found = [(control.name, _pairs(part.run, paper, control)) for paper, control in _controls(part)]
    rows = [
        (f"paper minus {name}", difference_text(paired_difference(pairs)), f"{mcnemar(pairs):.3g}")
        for name, pairs in found
    ]
    return ["", *markdown_table(("difference", "points", "p"), rows)] if rows else []


def _control_facts(part: Part, paper: Cell, control: Cell) -> dict[str, Any]:
    pairs = _pairs(part.run, paper, control)
    return {"name": control.name, "difference": asdict(paired_difference(pairs)), "mcnemar_p": mcnemar(pairs)}


def _cell_facts(part: Part, cell: Cell) -> dict[str, Any]:
    summary, pairs, [suite] = Summary.of(part.run), _pairs(part.run, cell), part.run.config.suites
    difference, ms = summary.difference(cell, OFF).suites[suite], plan_ms(part.run, cell)
    tasks = {str(task): summary.task_counts(cell, suite, task) for _, task, _ in summary.tasks()}
    return {
        "name": cell.name,
        "planner": dict(cell.planner),
        "blind": cell.blind,
        "success": asdict(summary.rate(cell, suite)),
        "by_task": tasks,
        "minus_off": None if cell.name == OFF.name or not difference.num else asdict(difference),
        "mcnemar_p": None if cell.name == OFF.name or not pairs.num else mcnemar(pairs),
        "plan_ms_p50": None if math.isnan(ms) else ms,
    }


def _spreads(spreads: Spreads) -> list[str]:
    rows = [(each.varied, f"{each.actions:.4f}", f"{each.score:.4f}", f"{each.future:.4f}") for each in spreads.spreads]
    table = markdown_table(("noise that varies", "actions", "score of one value sample", "denoised future"), rows)
    error = f"The actions' mean absolute error to the expert's: {spreads.action_error:.4f}."
    measured = f"{spreads.num_observations} held-out observations, num_video_steps {spreads.num_video_steps}."
    return [*table, "", f"{measured} {error}"]


def _worth(verdicts: Sequence[Verdict]) -> list[str]:
    header = ("score", "rank correlation in a scene", "gain of the best by score", "of the truly best", "over scenes")
    rows = [
        [
            verdict.score,
            _interval(verdict.rank_correlation),
            _interval(verdict.gain),
            _interval(verdict.possible_gain),
            "-" if math.isnan(verdict.over_scenes) else f"{verdict.over_scenes:+.2f}",
        ]
        for verdict in verdicts
    ]
    spread = verdicts[0].spread_of_returns  # of the returns, so the same for every score
    return [*markdown_table(header, rows), "", f"Spread of returns within a scene: {spread:.3f}."]


def _interval(interval: Interval | None) -> str:
    if interval is None:
        return "-"
    return f"{interval.value:+.3f} ({interval.low:+.3f} to {interval.high:+.3f}), scenes {interval.num}"


def _calibration(bins: Iterable[Bin]) -> list[str]:
    header = ("predicted, in the model's units", "predicted return", "achieved return", "success %", "samples")
    rows = [
        [
            f"{each.predicted:+.3f}",
            "-" if each.predicted_return is None else f"{each.predicted_return:.3f}",
            f"{each.achieved:.3f}",
            f"{each.successes * 100:.0f}",
            str(each.num),
        ]
        for each in bins
    ]
    return markdown_table(header, rows)


def _likenesses(likenesses: Iterable[Likeness]) -> list[str]:
    rows = [[each.camera, f"{each.imagined_db:.1f}", f"{each.copied_db:.1f}", str(each.num)] for each in likenesses]
    return markdown_table(("camera", "imagined, PSNR dB", "last picture, PSNR dB", "plans"), rows)


def _costs(costs: Iterable[CostOfK]) -> list[str]:
    rows = [
        [str(cost.k), f"{cost.plan_ms_p50:.0f}", f"{cost.plan_ms_p95:.0f}", f"{cost.peak_mb:.0f}"] for cost in costs
    ]
    return markdown_table(("K", "plan ms p50", "p95", "peak memory MB"), rows)
