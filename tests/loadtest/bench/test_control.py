"""The control benchmark: its arithmetic, its pace, and a short run on the fake backend that leaves no process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from loadtest.bench.control_figures import LoopRun, aims_of, link_figures, loop_figures, table
from loadtest.bench.control_links import Answer, Compared, Pace
from loadtest.bench.control_robots import SETTLE_S, periods
from loadtest.bench.fake_service import fake
from wavserve.app.settings_sources import Given, load_settings
from wavserve.backends.fake import FakeBackend
from wavserve.bundle.bundle import Bundle

ROOT = Path(__file__).parents[3]


def answer(whole: float, plan: float) -> Answer:
    return Answer(whole, plan, to_server=0.001, in_server=whole - 0.003, from_server=0.002)


def test_the_stream_adds_its_own_time_without_the_plan_and_without_what_unary_adds() -> None:
    """The plans of the stream took longer here. That is not the stream's."""
    found = Compared(
        stream=[answer(0.110, 0.105), answer(0.210, 0.204), answer(0.020, 0.013)],
        unary=[answer(0.014, 0.010), answer(0.015, 0.010), answer(0.016, 0.010)],
        pings=[0.001] * 99 + [0.1],
    )
    figures = link_figures(found)
    assert figures["added_p50"] == pytest.approx(1.0)  # 6 ms beside its plan, over 5 ms
    assert figures["without_plan"]["stream"]["p50"] == 6.0
    assert figures["frame_to_chunk"]["stream"]["p50"] == 110.0
    assert figures["parts_p50"]["unary"] == {"to_server": 1.0, "in_server": 12.0, "from_server": 2.0, "plan": 10.0}
    assert figures["ping"] == {"p50": 1.0, "p99": pytest.approx(1.99)}
    assert (figures["answers"], figures["pings"]) == ({"stream": 3, "unary": 3}, 100)


def test_jitter_and_processor_time_are_over_all_turns_and_processes() -> None:
    output = {
        "cpu_s": 0.2,
        "periods_s": [1 / 30] * 9 + [0.043],
        "dropped_ticks": 1,
        "frame_to_chunk_s": [0.010, 0.030],
        "counts": {"chunk": 9, "hold": 1},
    }
    turns = [LoopRun([output, output], 0.02, 0.3, 2.0), LoopRun([output], 0.04, 0.3, 3.0)]
    figures = loop_figures(turns)
    assert (figures["observations"], figures["steps"], figures["dropped_steps"]) == (6, 30, 3)
    assert figures["frame_to_chunk"] == {"p50": 20.0, "p99": 30.0}
    assert figures["jitter_p99"] == pytest.approx(43.0 - 1e3 / 30, abs=0.01)
    assert figures["gateway_cpu_per_observation"] == pytest.approx(600 / 6)
    assert figures["client_cpu_per_observation"] == pytest.approx(600 / 6)
    assert (figures["gateway_cores"], figures["client_cores"]) == (pytest.approx(0.12), pytest.approx(0.12))
    assert figures["gateway_cores_at_rest"] == pytest.approx(0.03)
    assert figures["counts"] == {"chunk": 27, "hold": 3}


def test_a_run_in_which_every_robot_starved_has_no_figures() -> None:
    output = {"cpu_s": 0.2, "periods_s": [0.03], "dropped_ticks": 0, "frame_to_chunk_s": [], "counts": {}}
    with pytest.raises(RuntimeError, match="no robot got a second chunk"):
        loop_figures([LoopRun([output], 0.0, 0.1, 1.0)])


def test_steps_of_the_first_second_do_not_count() -> None:
    ticks = [5.0, 5.9, 5.0 + SETTLE_S, 6.1, 6.3]
    assert periods(ticks) == pytest.approx([0.1, 0.2])


def example_result(added: float, ping: float) -> dict[str, Any]:
    each = {"p50": 1.0, "p99": 2.0}
    loop = {
        "frame_to_chunk": each,
        "jitter_p99": 0.5,
        "gateway_cpu_per_observation": 7,
        "client_cpu_per_observation": 9,
    }
    links = {"added_p50": added, "ping": {"p50": 1.0, "p99": ping}, "frame_to_chunk": {"stream": each, "unary": each}}
    return {"links": links, "loops": {"control": loop, "unary": loop}}


def test_there_is_an_aim_for_each_number_of_robots_and_one_for_the_pings_of_sixteen() -> None:
    results = {"fake": {"1": example_result(0.9, 90.0), "16": example_result(1.1, 19.0)}}
    aims = aims_of(results)
    assert [(aim["name"], aim["met"]) for aim in aims] == [
        ("fake, 1 robots: p50 that the stream adds to a plan over unary, ms", True),
        ("fake, 16 robots: p50 that the stream adds to a plan over unary, ms", False),
        ("fake, 16 robots: p99 of a ping while plans run, ms", True),
    ]
    sizes = {"3 x 128x128": {"jpeg": 10, "raw": 50, "raw_over_jpeg": 5.0}}
    text = table({"backends": results, "bytes_per_observation": sizes, "aims": aims})
    assert "JPEG 10, raw 50 (5.0 x)" in text
    assert len([line for line in text.splitlines() if line.startswith("fake ")]) == 4


def test_pings_that_were_not_measured_are_neither_met_nor_missed() -> None:
    assert aims_of({"local": {"4": example_result(0.0, 1.0)}})[-1]["met"] is None


async def test_a_pace_gives_every_turn_once_and_in_order() -> None:
    """A slow turn is made up for, so that the rate stays the same."""
    assert [turn async for turn in Pace(first=0.02, period=0.2, until=0.9).turns()] == [0, 1, 2, 3, 4]
    assert [turn async for turn in Pace(first=1.0, period=0.2, until=0.5).turns()] == []


async def test_the_fake_service_has_no_models_behind_its_policy(tiny: Bundle) -> None:
    settings = load_settings(None, {}, [Given("bundle.path", str(tiny.folder), "test")]).settings
    backend = fake(settings)
    assert isinstance(backend, FakeBackend)
    assert backend.book.num_slots == settings.arena.num_slots
    await backend.close()


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loadtest.bench.control", *arguments]
    environ = {**os.environ, **variables}
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, cwd=ROOT, timeout=300)


def test_a_short_run_on_the_fake_backend(tmp_path: Path) -> None:
    ran = run("--seconds=4", "--backends", "fake", "--robots", "2", TMPDIR=str(tmp_path))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])
    of = found["backends"]["fake"]["2"]
    assert min(of["links"]["answers"].values()) >= 10
    assert of["links"]["pings"] > 10
    for over in ("control", "unary"):
        loop = of["loops"][over]
        assert loop["observations"] >= 4, over
        assert loop["counts"]["chunks"] >= 8, over
        assert loop["counts"].get("other_events", 0) == 0, over
        assert 0 < loop["gateway_cpu_per_observation"] < 1000, over
    sizes = found["bytes_per_observation"]["3 x 128x128"]
    assert 3 * 128 * 128 * 3 < sizes["raw"] < 1.01 * 3 * 128 * 128 * 3
    assert sizes["jpeg"] < sizes["raw"] / 3
    assert [aim["met"] is None for aim in found["aims"]] == [False, True]
    assert not [p for p in psutil.process_iter(["environ"]) if (p.info["environ"] or {}).get("TMPDIR") == str(tmp_path)]


def test_a_run_that_is_too_short_is_refused() -> None:
    ran = run("--seconds=1")
    assert ran.returncode == 2
    assert "--seconds: expected at least 4, got 1" in ran.stderr
