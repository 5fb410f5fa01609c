"""The link thread's decisions, one round at a time, with a client that does what the test says."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.clients.piper.rig import eventually
from tests.clients.piper.stage import chunk, config, swing
from wavserve.clients.latency import LatencyWindow
from wavserve.clients.piper.cameras import Camera
from wavserve.clients.piper.link import PolicyLink
from wavserve.clients.piper.log import RunLog
from wavserve.clients.piper.mailbox import Arrived, Asked, Mailbox, Moment
from wavserve.clients.robot import Event, LinkDown, LinkState, RobotObservation
from wavserve.core.control import DropReason, ExecutionReport, ObservationDropped, StreamError
from wavserve.core.errors import ContractMismatch, NotReady, WavserveError


class Time:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class ScriptedClient:
    """Records what it is given, and tells what it is told."""

    def __init__(self) -> None:
        self.link = LinkState(True, "s", 1, 0.01, 0.5)
        self.latency = LatencyWindow()
        self.stopped: WavserveError | None = None
        self.seen: list[RobotObservation] = []
        self.reports: list[ExecutionReport] = []
        self.events: list[Event] = []
        self.takes = True

    def observe(self, observation: RobotObservation) -> int | None:
        if not self.takes:
            return None
        self.seen.append(observation)
        return len(self.seen) - 1

    def report(self, report: ExecutionReport) -> None:
        self.reports.append(report)

    def poll(self) -> Event | None:
        return self.events.pop(0) if self.events else None


class Bench:
    """A link with three cameras that have a picture each."""

    def __init__(self, log: RunLog) -> None:
        self.time, self.client, self.mailbox = Time(), ScriptedClient(), Mailbox()
        robot = config()
        self.cameras = [Camera(camera, robot.watch, self.time) for camera in robot.cameras]
        self.look()
        self.link = PolicyLink(robot, self.client, self.cameras, self.mailbox, log, self.time)

    def look(self) -> None:
        for camera in self.cameras:
            camera.take(np.full((48, 64, 3), round(self.time.now * 10) % 255, np.uint8))

    def moment(self, step: int = 0, wants: bool = True) -> Moment:
        made = Moment(step, (0.1,) * 14, step, wants, self.time.now)
        self.mailbox.moment = made
        return made

    def passes(self, seconds: float) -> None:
        self.time.now += seconds
        self.look()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    log = RunLog(tmp_path / "log.jsonl", 10**6, 1)
    log.close()
    return Bench(log)


def test_an_observation_has_the_newest_pictures_and_the_moment(bench: Bench) -> None:
    moment = bench.moment(7)
    bench.passes(0.02)
    bench.link.step()
    [seen] = bench.client.seen
    assert set(seen.images) == {"top", "left_wrist", "right_wrist"}
    assert (seen.control_step, seen.executed_steps, seen.state) == (7, 7, moment.state)
    assert seen.captured_mono_ns == round(bench.time.now * 1e9)
    assert seen.instruction == "put the cup on the plate"
    assert [type(each) for each in bench.mailbox.to_control] == [Asked]


def test_one_observation_is_under_way_at_a_time(bench: Bench) -> None:
    for step in range(5):
        bench.moment(step)
        bench.link.step()
        bench.passes(0.033)
    assert len(bench.client.seen) == 1


def answered(bench: Bench) -> Event:
    moment = bench.mailbox.moment
    assert moment is not None
    return chunk(swing(replace(moment, state=(0.0,) * 14), 0), moment, 0, 1, "s")


def dropped(bench: Bench) -> Event:
    return ObservationDropped(0, DropReason.TOO_OLD)


def failed(bench: Bench) -> Event:
    return StreamError(name="backend-failure", message="broken", sequence=0)


def down(bench: Bench) -> Event:
    return LinkDown(NotReady("gone"), 0.1)


@pytest.mark.parametrize("event", [answered, dropped, failed, down])
def test_after_any_answer_the_next_observation_waits_for_a_newer_moment(
    bench: Bench, event: Callable[[Bench], Event]
) -> None:
    bench.moment(0)
    bench.link.step()
    bench.passes(0.1)
    bench.client.events.append(event(bench))
    bench.link.step()
    if event is not down:
        assert len(bench.client.seen) == 1, "the moment is from before the answer"
    bench.passes(0.6)
    bench.moment(3)
    bench.link.step()
    assert len(bench.client.seen) == 2


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (ObservationDropped(0, DropReason.OVERLOADED, 0, 1, 900), "the observation was dropped: overloaded"),
        (ObservationDropped(0, DropReason.TOO_OLD, 0, 1, 900), "the observation was dropped: too_old"),
        (
            StreamError(name="not-ready", message="loading", sequence=0, retry_after_ms=900),
            "not-ready: loading",
        ),
    ],
)
def test_after_a_refusal_the_next_observation_waits_and_the_operator_is_told_why(
    bench: Bench, event: Event, words: str
) -> None:
    bench.moment(0)
    bench.link.step()
    bench.client.events.append(event)
    bench.link.step()
    assert bench.mailbox.link.refusal == words
    for _ in range(2):
        assert len(bench.client.seen) == 1
        bench.passes(0.46)
        bench.moment(1)
        bench.link.step()
    assert len(bench.client.seen) == 2
    bench.client.events.append(answered(bench))
    bench.link.step()
    assert bench.mailbox.link.refusal == ""


def test_a_chunk_comes_with_its_latency(bench: Bench) -> None:
    bench.moment(0)
    bench.link.step()
    bench.passes(0.25)
    bench.client.events.append(answered(bench))
    bench.link.step()
    arrived = bench.mailbox.to_control[-1]
    assert isinstance(arrived, Arrived)
    assert arrived.latency_s == pytest.approx(0.25)


def test_an_observation_that_nobody_answers_is_forgotten_after_its_deadline(bench: Bench) -> None:
    bench.moment(0)
    bench.link.step()
    bench.passes(2.9)
    bench.moment(1)
    bench.link.step()
    assert len(bench.client.seen) == 1
    bench.passes(0.2)
    bench.moment(2)
    bench.link.step()
    assert len(bench.client.seen) == 2


def test_a_link_that_fails_by_a_bug_tells_the_control_why(bench: Bench) -> None:
    def fail() -> Event | None:
        raise KeyError("bug")

    bench.client.poll = fail  # type: ignore[method-assign]
    bench.link.start()
    eventually(lambda: bench.link.failure != "")
    assert bench.mailbox.link.problem == "the link failed by a bug: KeyError: 'bug'; restart"
    bench.link.close()


def test_a_frozen_camera_blinds_the_robot_until_it_sees_again(bench: Bench) -> None:
    bench.time.now += 0.5
    for camera in bench.cameras[:2]:
        camera.take(np.zeros((48, 64, 3), np.uint8))
    bench.moment(0)
    bench.link.step()
    assert bench.mailbox.link.problem == "camera right_wrist: no picture for more than 300 ms"
    assert bench.client.seen == []
    bench.look()
    bench.link.step()
    assert bench.mailbox.link.problem == ""
    assert len(bench.client.seen) == 1


@pytest.mark.parametrize("silent_s", [0.51, math.inf])
def test_no_observation_is_sent_over_a_lost_link(bench: Bench, silent_s: float) -> None:
    bench.client.link = replace(bench.client.link, silent_s=silent_s)
    bench.moment(0)
    bench.link.step()
    assert bench.mailbox.link.is_lost
    assert bench.client.seen == []


def test_no_observation_is_sent_of_a_moment_that_is_old_or_not_wanted(bench: Bench) -> None:
    bench.moment(0, wants=False)
    bench.link.step()
    bench.moment(1)
    bench.passes(0.3)
    bench.link.step()
    assert bench.client.seen == []


def test_a_client_that_refuses_an_observation_is_asked_again(bench: Bench) -> None:
    bench.client.takes = False
    bench.moment(0)
    bench.link.step()
    assert list(bench.mailbox.to_control) == []
    bench.client.takes = True
    bench.link.step()
    assert len(bench.client.seen) == 1


def test_a_client_that_has_stopped_is_trouble(bench: Bench) -> None:
    bench.client.stopped = ContractMismatch("policy_digest", "dd", "ee")
    bench.moment(0)
    bench.link.step()
    assert bench.mailbox.link.problem.startswith("the client connects no more: policy_digest")
    assert bench.client.seen == []


def test_reports_go_to_the_service(bench: Bench) -> None:
    bench.mailbox.reports.append(ExecutionReport(chunk_id="c"))
    bench.link.step()
    assert [report.chunk_id for report in bench.client.reports] == ["c"]
