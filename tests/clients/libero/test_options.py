"""What a user asks for: flags over a file over defaults, and the cells that follow from lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wavserve.clients.libero.cells import Cell
from wavserve.clients.libero.options import cells_of, read_options
from wavserve.core.errors import InvalidRequest, SettingsError
from wavserve.core.options import merge_options
from wavserve.core.spec import MODES
from wavserve.models.weights.preset_specs import PRESETS

SUITE = {"suite": ["libero_object"]}


def cells(**flags: Any) -> tuple[Cell, ...]:
    return cells_of(read_options(SUITE | flags, None))


def test_the_defaults_are_the_protocol_of_the_literature() -> None:
    options = read_options(SUITE, None)
    assert (options.num_trials_per_task, options.num_steps_wait, options.replan_steps) == (50, 10, 8)
    assert (options.tasks, options.max_steps, options.rotation, options.clock) == ((), None, None, "lockstep")
    assert options.address == "127.0.0.1:8001"
    assert read_options(SUITE | {"transport": "http"}, None).address == "http://127.0.0.1:8000"
    assert cells() == (Cell(name="policy"),)


def test_flags_replace_the_keys_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('suite = ["libero_goal", "libero_10"]\nseed = 3\nk = [0, 5]\nlatency_ms = [0]\n')
    options = read_options({"seed": 4}, file)
    assert (options.suite, options.seed, options.k, options.latency_ms) == (
        ("libero_goal", "libero_10"),
        4,
        (0, 5),
        (0.0,),
    )


def test_the_example_file_compares_modes_and_numbers_that_the_preset_takes() -> None:
    made = cells_of(read_options({}, Path("examples/libero_paper.toml")))
    policy = PRESETS["libero"]().spec
    configs = {cell.name: merge_options(policy.planner, policy.bounds, dict(cell.planner)) for cell in made}
    assert len(configs) == len(made) == 13
    assert {config.mode for config in configs.values()} == set(MODES)


def test_every_combination_is_a_cell() -> None:
    made = cells(planner=["off", "paper", "random_scores"], k=[1, 5], n=[8], rtc=["off", "rtc_guided"])
    assert [cell.name for cell in made] == [
        *("off-no-rtc", "off-rtc-guided", "paper-k1-no-rtc", "paper-k1-rtc-guided", "paper-k5-no-rtc"),
        *("paper-k5-rtc-guided", "random-scores-k1-no-rtc", "random-scores-k1-rtc-guided"),
        *("random-scores-k5-no-rtc", "random-scores-k5-rtc-guided"),
    ]
    assert made[0].planner == {"mode": "off"}
    assert made[5].planner == {"mode": "paper", "num_iterations": 5, "num_video_samples": 8}
    assert made[5].rtc == "rtc_guided"


def test_best_of_n_is_one_cell_whatever_the_number_of_iterations() -> None:
    made = cells(planner=["best_of_n"], k=[1, 5], n=[8, 16])
    assert [cell.name for cell in made] == ["best-of-n-n8", "best-of-n-n16"]
    assert made[0].planner == {"mode": "best_of_n", "num_video_samples": 8}


def test_latencies_make_cells_on_the_virtual_clock() -> None:
    made = cells(clock="virtual", latency_ms=[0.0, 100.0, 300.0], jitter_ms=20.0, loss=0.01)
    assert [(cell.name, cell.latency_ms) for cell in made] == [
        ("policy-0ms", 0.0),
        ("policy-100ms", 100.0),
        ("policy-300ms", 300.0),
    ]
    assert {(cell.clock, cell.jitter_ms, cell.loss) for cell in made} == {("virtual", 20.0, 0.01)}


def test_a_file_may_state_its_cells(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        'suite = ["libero_object"]\n'
        '[[cells]]\nname = "plain"\nplanner = { mode = "off" }\n'
        '[[cells]]\nname = "slow"\nclock = "virtual"\nlatency_ms = 250\n'
    )
    options = read_options({}, file)
    assert cells_of(options) == (
        Cell(name="plain", planner={"mode": "off"}),
        Cell(name="slow", clock="virtual", latency_ms=250.0),
    )
    with pytest.raises(SettingsError, match="planner: expected no such key beside cells"):
        read_options({"planner": ["off"]}, file)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (SUITE | {"planner": ["papper"]}, r"planner\[0\]: expected paper or published"),
        (SUITE | {"clock": "virtal"}, "clock: expected lockstep or virtual or wall, got 'virtal'"),
        (SUITE | {"transport": "tcp"}, "transport: expected stream or grpc or http"),
        (SUITE | {"cells": [{"name": "a"}, {"name": "a"}]}, "cells.name: expected distinct names"),
        (SUITE | {"cells": [{"name": "../a"}]}, "cells.name: expected distinct names of letters, digits and -"),
        (SUITE | {"trials": 3}, "trials: unknown key"),
    ],
)
def test_what_cannot_be_read_is_named(flags: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        read_options(flags, None)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"num_trials_per_task": 0}, "--num-trials-per-task: expected at least 1, got 0"),
        ({"replan_steps": 0}, "--replan-steps"),
        ({"rotation": 90}, "--rotation: expected 0 or 180, got 90"),
        ({"num_envs": 0}, "--num-envs"),
        ({"shift": 0.2}, "--shift: expected 0 to 0.1, got 0.2"),
        ({"shift": -0.01}, "--shift: expected 0 to 0.1"),
        ({"tasks": [1, 1]}, "--tasks: expected each value once, got 1, 1"),
        ({"planner": ["off", "off"]}, "--planner: expected each value once"),
        ({"latency_ms": [100.0]}, "--latency-ms: expected 0, except with --clock virtual, got --clock lockstep"),
        ({"loss": 0.5, "clock": "wall"}, "--loss: expected 0, except with --clock virtual, got --clock wall"),
        ({"loss": 1.0, "clock": "virtual"}, "--loss: expected 0, or a share below 1, got 1.0"),
        ({"jitter_ms": -1.0, "clock": "virtual"}, "--jitter-ms: expected 0 to 60000, got -1.0"),
        ({"latency_ms": [6e5], "clock": "virtual"}, "--latency-ms: expected 0 to 60000, got 600000.0"),
        ({"in_process": "bundle", "service": "a:1"}, "--service: expected none beside --in-process"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused(flags: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        read_options(SUITE | flags, None)


def test_the_suites_have_no_default() -> None:
    with pytest.raises(InvalidRequest, match="--suite: expected names of suites, such as libero_object, got none"):
        read_options({}, None)


@pytest.mark.parametrize(
    ("transport", "service", "expected"),
    [
        ("grpc", "http://127.0.0.1:8000", "HOST:PORT with --transport grpc"),
        ("stream", "https://robots.example", "HOST:PORT with --transport stream"),
        ("http", "127.0.0.1:8001", "http://HOST:PORT with --transport http"),
    ],
)
def test_an_address_is_of_its_transport(transport: str, service: str, expected: str) -> None:
    """The record says how plans travelled, so the address must not decide otherwise."""
    with pytest.raises(InvalidRequest, match=f"--service: expected {expected}, got"):
        read_options(SUITE | {"transport": transport, "service": service}, None)


def test_several_gateways_are_one_text_with_commas() -> None:
    assert read_options(SUITE | {"service": "a:1,b:1"}, None).address == "a:1,b:1"
    with pytest.raises(InvalidRequest, match=r"--service\[1\]: expected HOST:PORT, as the first one"):
        read_options(SUITE | {"service": "a:1,http://b:1"}, None)
