"""The operations benchmark: its arithmetic, and a short run with every part on that leaves no process."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from loadtest.bench.fake_service import SilentMetrics
from loadtest.bench.ops import PARTS
from loadtest.bench.ops_figures import Lag, Pairs, added, load_figures, report, table
from wavserve.system.telemetry import Metrics

ROOT = Path(__file__).parents[3]


def test_a_part_costs_the_median_of_the_pairs_and_not_the_difference_of_the_medians() -> None:
    pairs = Pairs(seconds=[(0.010, 0.011), (0.050, 0.052), (0.012, 0.015)], cpu_s=(0.03, 0.06))
    figures = added(pairs, scrapes=[0.004])
    assert figures["added_ms"] == {"p25": 1.5, "p50": 2.0, "p75": 2.5}
    assert figures["plan_ms"] == {"off": 12.0, "on": 15.0}
    assert figures["gateway_cpu_ms_per_plan"] == {"off": 10.0, "on": 20.0}
    assert figures["scrape_ms"] == 4.0


def test_the_lag_of_a_turn_is_without_what_was_before_it() -> None:
    before = Lag({0.001: 10.0, 0.0025: 10.0, math.inf: 10.0}, 0.005)
    after = Lag({0.001: 60.0, 0.0025: 110.0, math.inf: 110.0}, 0.155)
    figures = load_figures([0.01, 0.02, 0.03], 0.5, before, after)
    assert figures["lag_mean_ms"] == pytest.approx(1.5)
    assert figures["lag_p99_ms"] == pytest.approx(1 + 1.5 * 0.98)
    assert (figures["plans"], figures["plan_p50_ms"], figures["gateway_cores"]) == (3, pytest.approx(20), 0.5)
    assert Lag({0.001: 0.0, math.inf: 10.0}, 900.0).quantile(0.5) == 0.001  # the last bound that is known


def test_a_gateway_without_metrics_counts_no_plan_and_still_shows_its_lag() -> None:
    silent = SilentMetrics()
    silent.plans.answered(3, "met", {"total": 0.2})
    silent.calls.called("score", 1, 1, 0.1)
    silent.observe_request("http", "ok", 0.1)
    silent.observe_lag(0.25)
    value = silent.registry.get_sample_value
    assert value("wavserve_plan_iterations_count") == 0
    assert value("wavserve_requests_total", {"edge": "http", "outcome": "ok"}) is None
    assert value("wavserve_event_loop_lag_seconds_sum") == 0.25
    assert isinstance(silent, Metrics)


@pytest.mark.parametrize(
    ("costs", "met"), [({"together": 3.1}, False), ({"together": 2.9}, True), ({"page": 9.0}, None)]
)
def test_the_aim_is_about_all_parts_together(costs: dict[str, float], met: bool | None) -> None:
    found = {part: added(Pairs([(0.0, each / 1e3)], (0.0, 0.0)), []) for part, each in costs.items()}
    output = report(found, {}, 64, [(1.0, 1.0, 1.0)])
    assert [aim["met"] for aim in output["aims"]] == [met]
    assert table(output)


def test_each_part_is_the_only_difference_of_its_pair_and_all_are_in_the_last_one() -> None:
    parts = [name for name in PARTS if name != "together"]
    for name in parts:
        off, on = PARTS[name]
        assert on - off == {name}
        assert off <= on
    assert PARTS["together"] == (frozenset(), frozenset(parts))


def test_a_short_run_with_every_part_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "loadtest.bench.ops", "--parts", "together"]
    command += ["--plans=4", "--robots=3", "--seconds=1"]
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    ran = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, cwd=ROOT, timeout=600)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])
    cost = found["costs"]["together"]
    assert cost["pairs"] == 4
    assert cost["scrape_ms"] > 0
    for name in ("off", "on"):
        assert cost["plan_ms"][name] > 0
        assert found["load"][name]["plans"] >= 1
        assert found["load"][name]["gateway_cores"] > 0
    assert [aim["met"] is None for aim in found["aims"]] == [False]
    assert not [p for p in psutil.process_iter(["environ"]) if (p.info["environ"] or {}).get("TMPDIR") == str(tmp_path)]
