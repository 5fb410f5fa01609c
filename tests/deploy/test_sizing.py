"""The computed rows of docs/sizing.md follow from the presets, the operations of a plan and the measured times."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from loadtest.bench.gpu_report import workload
from tests.deploy.overlays import ROOT
from wavserve.core.spec import PolicySpec
from wavserve.models import flops
from wavserve.models.weights.preset_specs import PRESETS

SIZING = (ROOT / "docs/sizing.md").read_text(encoding="utf-8")
USABLE = 0.7
PLAN_S = {"compiled": 1.69, "uncompiled": 1.86}
"""Measured: a LIBERO plan of K = 5 on an H100, served to four robots."""


def rows(heading: str) -> list[list[str]]:
    """The cells of a section's table, without its head."""
    section = SIZING.partition(f"\n### {heading}\n")[2].partition("\n## ")[0].partition("\n### ")[0]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("|")]
    return cells[2:]


def number(cell: str) -> float:
    return float(re.split(r"[ ,]", cell)[0])


def tflop(spec: PolicySpec, num_iterations: int) -> float:
    work = workload(spec)
    return flops.fast(replace(work, planner=replace(work.planner, num_iterations=num_iterations))).plan / 1e12


@pytest.mark.parametrize("heading", ["LIBERO", "Piper"])
def test_robots_follow_from_operations(heading: str) -> None:
    spec, measured = PRESETS[heading.lower()]().spec, tflop(PRESETS["libero"]().spec, 5)
    for k, operations, *columns in rows(heading):
        assert number(operations) == round(tflop(spec, int(k)))
        for (plan, robots), plan_s in zip((columns[:2], columns[2:]), PLAN_S.values(), strict=True):
            expected_s = tflop(spec, int(k)) / measured * plan_s
            assert number(plan) == pytest.approx(expected_s, abs=0.006)
            assert number(robots) == pytest.approx(USABLE * spec.chunk / spec.control_hz / expected_s, abs=0.051)


def test_robots_at_tiny_follow_from_measured_rates() -> None:
    spec = PRESETS["tiny"]().spec
    for _, rate, at_once, robots in rows("tiny"):
        fit = float(rate) * spec.chunk / spec.control_hz
        assert 0 <= fit - float(at_once) < 1
        assert int(robots) == int(USABLE * fit)


def test_the_periods_are_those_of_the_presets() -> None:
    stated = re.findall(r"\| `([a-z]+)` \| (\d+) steps at (\d+) Hz \| ([\d.]+) s \|", SIZING)
    assert [name for name, *_ in stated] == ["tiny", "libero", "piper"]
    for name, chunk, rate, period in stated:
        spec = PRESETS[name]().spec
        assert (int(chunk), float(rate), float(period)) == (spec.chunk, spec.control_hz, spec.chunk / spec.control_hz)
