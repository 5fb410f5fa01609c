"""`wavserve libero` with a fake simulator: a whole run, its folder and its report, and what is refused before it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.clients.chunks import chunk_of
from tests.clients.gateways import Stream, gateway
from tests.clients.libero.examples import LIBERO_POLICY
from tests.simulation.fake import STEP_M, FakeEnvironment, goal_of
from tests.spans import Spans
from wavserve.cli import build_parser, main
from wavserve.clients.libero.options import Options, read_options
from wavserve.clients.libero.results import load_run
from wavserve.clients.plan_client import PlanClient
from wavserve.commands.libero import evaluate
from wavserve.core import errors
from wavserve.core.control import ControlObservation
from wavserve.core.messages import ActionChunk, Observation, PolicyInfo
from wavserve.core.simulation import Start, Variation
from wavserve.core.starts import Purpose


class Planner:
    """Plans to the goal of a fake task where mode is not `off`, else stands still."""

    def __init__(self, policy: PolicyInfo = LIBERO_POLICY) -> None:
        self.info = policy
        self.num_plans = 0
        self.goals = {
            f"reach the point {letter}": [goal_of(Start("fake_reach", task, state, 7 + state)) for state in range(5)]
            for task, letter in enumerate("abc")
        }

    def plan(self, observation: Observation) -> ActionChunk:
        self.num_plans += 1
        position = np.array(observation.state[:3])
        actions = np.zeros((16, 7), np.float32)
        if observation.options["mode"] != "off":
            nearest = self.goals[observation.instruction][0]
            way = (nearest - position) / STEP_M
            steps = np.clip(way - np.arange(16)[:, None] * np.sign(way), -1, 1) * (np.abs(way) > np.arange(16)[:, None])
            actions[:, :3] = steps
            actions[:, 6] = np.where(np.abs(steps).max(axis=1) > 0, -1.0, 1.0)
        chunk = chunk_of(actions, observation.control_step, observation.sequence, dt_ns=50_000_000, epoch=0)
        return replace(chunk, receipt=replace(chunk.receipt, policy_digest=self.info.digest))

    def end(self, session_id: str) -> None: ...

    def policy(self) -> PolicyInfo:
        return self.info

    def close(self) -> None: ...


def options(folder: Path, **flags: Any) -> Options:
    given = {
        "suite": ["fake_reach"],
        "num_trials_per_task": 1,
        "planner": ["off", "paper"],
        "out": str(folder / "run"),
        "videos": 0,
    }
    return read_options(given | flags, None)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., int]:
    def run(planner: Planner | None = None, **flags: Any) -> int:
        return evaluate(options(tmp_path, **flags), planner or Planner(), FakeEnvironment)

    return run


def test_each_plan_of_a_stream_has_a_span(tmp_path: Path, capsys: Any) -> None:
    spans = Spans()

    def answer(stream: Stream, seen: ControlObservation) -> None:
        receipt = replace(stream.chunk(seen).receipt, policy_digest=LIBERO_POLICY.digest)
        stream.send(stream.chunk(seen, receipt=receipt))

    with gateway() as served:
        served.policy, served.answer = LIBERO_POLICY, answer
        asked = options(tmp_path, transport="stream", service=served.address, planner=["off"], max_steps=8, tasks=[0])
        with PlanClient(served.address) as planner:
            assert evaluate(asked, planner, FakeEnvironment, spans.tracer("client")) == 0
        sent = [seen.traceparent for stream in served.streams for seen in stream.observations]
    assert sent
    assert [
        f"00-{each.context.trace_id:032x}-{each.context.span_id:016x}-01" for each in spans.named("robot.plan")
    ] == sent


def test_a_run_writes_records_and_a_report(run: Callable[..., int], tmp_path: Path, capsys: Any) -> None:
    assert run() == 0
    records = load_run(tmp_path / "run").records
    assert {(each.cell, each.task, each.success) for each in records} == {
        *(("off", task, False) for task in range(3)),
        *(("paper", task, True) for task in range(3)),
    }
    assert {each.num_steps for each in records if not each.success} == {30}
    assert {each.versions["simulator"] for each in records} == {"fake 1"}
    assert (tmp_path / "run" / "report" / "index.html").exists()
    assert len(list((tmp_path / "run" / "states").iterdir())) == 6
    told = capsys.readouterr()
    assert "| paper | 100.0" in told.out
    lines = told.err.splitlines()
    assert sum(" episodes, success " in line for line in lines) == 6
    last = "6/6 episodes, success 50.0%, 0 min 0 s left: paper fake_reach task 2"
    assert any(line.startswith(last) for line in lines)


def test_the_same_command_again_makes_no_plan(run: Callable[..., int], tmp_path: Path) -> None:
    run()
    content = (tmp_path / "run" / "episodes.jsonl").read_bytes()
    again = Planner()
    run(again)
    assert again.num_plans == 0
    assert (tmp_path / "run" / "episodes.jsonl").read_bytes() == content


def test_equal_runs_have_equal_records_but_for_wall_times(run: Callable[..., int], tmp_path: Path) -> None:
    timed = {"clock": "virtual", "latency_ms": [0.0, 120.0], "jitter_ms": 30.0, "loss": 0.2}
    run(**timed)
    run(**timed, out=str(tmp_path / "again"), num_envs=2)
    first, second = (
        {each.key: replace(each, wall={}) for each in load_run(tmp_path / name).records} for name in ("run", "again")
    )
    assert first == second
    assert len(first) == 12


def test_an_untrained_policy_is_called_so_everywhere(run: Callable[..., int], tmp_path: Path, capsys: Any) -> None:
    planner = Planner(replace(LIBERO_POLICY, untrained=True))
    with pytest.raises(errors.InvalidRequest, match="policy: expected a trained one, or --allow-untrained"):
        run(planner)
    assert not (tmp_path / "run").exists()
    run(planner, allow_untrained=True)
    told = capsys.readouterr()
    assert "random weights" in told.err
    assert "untrained" in told.out.lower()
    assert all(each.untrained for each in load_run(tmp_path / "run").records)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["untrained"] is True


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"suite": ["libero_objct"]}, "suite: expected one of fake_reach, fake_other"),
        ({"tasks": [0, 9]}, "--tasks: expected 0 to 2, the tasks of fake_reach, got 9"),
        ({"num_trials_per_task": 50}, "--num-trials-per-task: expected at most 5"),
        ({"k": [99]}, "planner.num_iterations: expected 0 to 10, got 99"),
        ({"rtc": ["rtc_trained"]}, "--rtc: expected off, rtc_guided, .* got rtc_trained"),
    ],
)
def test_what_does_not_exist_is_refused_before_anything_starts(
    run: Callable[..., int], tmp_path: Path, flags: dict[str, Any], words: str
) -> None:
    planner = Planner()
    with pytest.raises(errors.InvalidRequest, match=words):
        run(planner, **flags)
    assert planner.num_plans == 0
    assert not (tmp_path / "run").exists()


def test_how_pictures_are_rendered_is_on_record(run: Callable[..., int], tmp_path: Path) -> None:
    run(no_antialiasing=True)
    done = load_run(tmp_path / "run")
    assert done.config.antialiasing is False
    assert {each.antialiasing for each in done.records} == {False}
    with pytest.raises(errors.InvalidRequest, match="antialiasing = False"):
        run()


def test_shifted_starts_are_paired_and_on_record(run: Callable[..., int], tmp_path: Path) -> None:
    opened: list[FakeEnvironment] = []

    def opener() -> FakeEnvironment:
        opened.append(FakeEnvironment())
        return opened[-1]

    assert evaluate(options(tmp_path, shift=0.03), Planner(), opener) == 0
    done = load_run(tmp_path / "run")
    assert done.config.shift == 0.03
    began = [start for environment in opened for start in environment.starts]
    assert began == [record.start for record in done.records], "so a video begins where the episode did"
    assert {start.variation for start in began} == {Variation(start.seed, 0.03, 0.03, 0.015) for start in began}
    assert all(start.seed % 3 == Purpose.CHOOSING for start in began), "no demonstration has such a seed"
    paired: dict[int, set[str]] = {}
    for record in done.records:
        paired.setdefault(record.seed, set()).add(record.cell)
    assert len(paired) == 3
    assert all(cells == {"off", "paper"} for cells in paired.values())
    with pytest.raises(errors.InvalidRequest, match=r"shift = 0\.03"):
        run()


def test_a_run_of_another_configuration_is_refused(run: Callable[..., int]) -> None:
    run()
    with pytest.raises(errors.InvalidRequest, match="--out: expected seed = 7"):
        run(seed=8)


def test_runs_are_reported_again_and_compared(run: Callable[..., int], tmp_path: Path, capsys: Any) -> None:
    run()
    run(out=str(tmp_path / "other"), replan_steps=4)
    capsys.readouterr()
    assert main(["libero", "report", str(tmp_path / "run")]) == 0
    assert "| paper | 100.0" in capsys.readouterr().out
    assert main(["libero", "compare", str(tmp_path / "run"), str(tmp_path / "other")]) == 0
    assert "replan_steps: 8 in A, 4 in B" in capsys.readouterr().out


def test_a_service_that_is_away_is_named(capsys: Any) -> None:
    assert main(["libero", "--suite", "libero_object", "--service", "127.0.0.1:1"]) == 1
    assert "127.0.0.1:1" in capsys.readouterr().err


def test_flags_are_options_and_their_defaults_are_shown(capsys: Any) -> None:
    args = build_parser().parse_args(["libero", "--suite", "libero_object,libero_goal", "--latency-ms", "0,100"])
    assert (args.suite, args.latency_ms, args.seed) == (["libero_object", "libero_goal"], [0.0, 100.0], None)
    with pytest.raises(SystemExit):
        main(["libero", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "episodes of each task in each cell (default: 50)" in shown
    assert "mean latency of a plan (default: 0)" in shown
