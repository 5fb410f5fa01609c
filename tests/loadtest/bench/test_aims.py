"""Every benchmark's JSON output has the list `aims`. The figures are made up; no benchmark runs."""

from __future__ import annotations

import json
from typing import Any

from loadtest.aims import Aim
from loadtest.bench import all as every
from loadtest.bench import exact, gpu_aims, on_triton, plan, rtc, serving


def results(output: dict[str, Any]) -> dict[str, bool | None]:
    """Name -> met, from the output after a round trip through JSON."""
    aims: list[Aim] = json.loads(json.dumps(output))["aims"]
    assert all(aim.keys() == {"name", "aim", "seen", "met"} for aim in aims)
    return {aim["name"]: aim["met"] for aim in aims}


def example_case(compiled: float, difference: float) -> dict[str, Any]:
    differences = {"fast": difference, "compiled": 1e-6, "bfloat16": 0.02}
    return {
        "ratio": {"plain": 1.0, "fast": 0.4, "compiled": compiled, "bfloat16": 0.14},
        "action_difference": {path: {"max": each, "mean": each} for path, each in differences.items()},
    }


def test_rtc_has_aims_for_time_and_difference() -> None:
    output = rtc.report({"tiny": {"ratio": {"guided": 4.5}, "guided_difference": 2e-6}})
    assert results(output) == {
        "tiny: time of a guided decode over a plain one's": False,
        "tiny: largest difference of a guided action from the plain path": True,
    }


def test_exact_has_an_aim_for_each_ratio_difference_and_share() -> None:
    elites = {"libero_shapes": {"same_sets": {"video": 0.975, "value": 0.875}}}
    output = exact.report({"libero_shapes": example_case(0.36, 1e-6)}, elites, {})
    assert results(output) == {
        "libero_shapes: time of compiled over plain's": False,
        "libero_shapes: time of bfloat16 over plain's": True,
        "libero_shapes: largest action difference of fast from plain": True,
        "libero_shapes: largest action difference of compiled from plain": True,
        "libero_shapes: share of draws in which bfloat16 has float32's video elites": True,
        "libero_shapes: share of draws in which bfloat16 has float32's value elites": False,
    }


def test_exact_says_what_a_quick_run_did_not_measure() -> None:
    output = exact.report({"tiny": example_case(0.5, 2e-4)}, {}, {})
    assert results(output) == {
        "libero_shapes: time of compiled over plain's": None,
        "libero_shapes: time of bfloat16 over plain's": None,
        "tiny: largest action difference of fast from plain": False,
        "tiny: largest action difference of compiled from plain": True,
        "tiny: share of draws in which bfloat16 has float32's video elites": None,
        "tiny: share of draws in which bfloat16 has float32's value elites": None,
    }


def test_plan_has_an_aim_for_each_edge() -> None:
    output = plan.report([0.3, 0.3], {"grpc": [0.003, 0.004], "http_multipart": [0.003, 0.006]})
    assert results(output) == {
        "grpc: p99 of the edge's own cost, ms": True,
        "http_multipart: p99 of the edge's own cost, ms": False,
    }
    assert output["edge_own_cost"]["grpc"] == {"requests": 2, "p50_ms": 3.5, "p99_ms": 3.99}
    assert output["plan_tiny"] == {"K": 3, "N": 8, "M": 3, "requests": 2, "p50_ms": 300.0, "p99_ms": 300.0}


def test_on_triton_has_an_aim_for_any_call_and_each_verb() -> None:
    by_verb = {"imagine": {"p50": 2.7, "p99": 5.8}, "encode_images": {"p50": 1.7, "p99": 2.9}}
    output = on_triton.report({"added": {"call_ms": {"p50": 2.0, "p99": 10.9}, "call_ms_by_verb": by_verb}})
    assert results(output) == {
        "any call: p50 that Triton adds, ms": True,
        "imagine: p50 that Triton adds, ms": False,
        "encode_images: p50 that Triton adds, ms": True,
    }


def test_serving_has_an_aim_for_each_server_to_beat() -> None:
    speeds = {
        ("planned", 1): {"ours": 4.0},
        ("planned", 8): {"ours": 7.0, "serial-plain": 2.0, "serial-fast": 4.0},
        ("off", 8): {"ours": 50.0, "serial-fast": 30.0},
    }
    comparison = serving.Comparison(servers={}, seconds=3.0, turns=1, bare=[0.2, 0.2])
    for (name, robots), servers in speeds.items():
        for server, speed in servers.items():
            comparison.results[name, robots, server] = [serving.TurnResult(speed, (0.25,), 1.0, 3.0)]
    output = serving.report(comparison, "local")
    assert results(output) == {
        "planned, 8 robots: our plans/s over serial-plain's": True,
        "planned, 8 robots: our plans/s over serial-fast's": True,
        "off, 8 robots: our plans/s over serial-fast's": False,
    }
    assert serving.table(output).splitlines()[-3].split()[-4:] == [">=", "2.5", "3.5", "yes"]


def test_the_gpu_report_has_the_aims_of_its_parts() -> None:
    report = {
        "parity": {"ok": False, "checks": 33, "failed": ["one"]},
        "exact": {"ok": True, "aim": 1e-4, "action_difference": {"fast": 1e-6, "graphs": 1e-6}},
        "bfloat16": {"ok": False, "aim": 0.95, "same_sets": {"video": 0.95, "value": 0.9}},
        "arena": {"aim": 1e-4, "action_difference": {"before": 0.0, "after": 0.0}, gpu_aims.WITHOUT_OWNER: "nothing"},
        "service": {"ok": False, "aim": 1e-4, "action_difference": 2e-4},
        "triton": {"skipped": "no wheel"},
        "plan": {"plans": {}},
    }
    assert results({"aims": gpu_aims.aims_of(report)}) == {
        "parity: checks within their fixtures' tolerance": False,
        "exact: largest action difference, fast": True,
        "exact: largest action difference, graphs": True,
        "bfloat16: share of draws with float32's video elites": True,
        "bfloat16: share of draws with float32's value elites": False,
        "arena: largest action difference, before": True,
        "arena: largest action difference, after": True,
        "arena: a plan after the arena owner's process exit": False,
        "service: largest action difference": False,
        "triton: runs": None,
    }
    failed = gpu_aims.aims_of({"exact": {"ok": False, "error": "ValueError: x"}})
    assert results({"aims": failed}) == {"exact: runs": False}


def test_all_collects_the_aims_of_every_benchmark() -> None:
    outputs = {"plan": plan.report([0.3], {"grpc": [0.003]}), "exact": {"bench": "exact", "aims": []}}
    output = every.report(outputs)
    assert results(output) == {"plan: grpc: p99 of the edge's own cost, ms": True}
    assert output["plan"] == outputs["plan"]
    assert output["command"] == "make bench"
