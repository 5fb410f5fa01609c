"""A simulated robot on a fake clock: when it sends requests, what it sends, and when it stalls."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from loadtest.robots.chunks import Playback, Stall
from loadtest.robots.event_log import EventLog
from loadtest.robots.frames import Frames
from loadtest.robots.pacing import ClosedLoop, OpenLoop
from loadtest.robots.replies import Reply, contradictions
from loadtest.robots.robot import AFTER_FAILURE_S, Assignment, Identity, Robot
from loadtest.robots.scenario import RobotGroup
from loadtest.robots.transports import RequestLost
from tests.loadtest.robots.rig import reply
from wavserve.core.errors import DeadlineExceeded, MissedDeadline, NotReady, Overloaded, UnknownSession
from wavserve.core.messages import Observation


@dataclass
class FakeClock:
    """A clock that advances only while a robot waits."""

    time: float = 0.0

    def now(self) -> float:
        return self.time

    async def sleep_until(self, when: float) -> None:
        self.time = max(self.time, when)


@dataclass
class FakeTransport:
    """Answers after `seconds`, or raises the next of `errors`. Records every request with its time."""

    clock: FakeClock
    seconds: float
    errors: list[Exception | None] = field(default_factory=list)
    sent: list[tuple[float, Observation]] = field(default_factory=list)

    async def plan(self, observation: Observation) -> Reply:
        self.sent.append((self.clock.time, observation))
        self.clock.time += self.seconds
        if self.errors and (error := self.errors.pop(0)) is not None:
            raise error
        return answer(observation)

    async def close(self) -> None: ...


def answer(sent: Observation, **changes: Any) -> Reply:
    has_deadline = sent.deadline_ms is not None
    echo: dict[str, Any] = {"sequence": sent.sequence, "receipt_sequence": sent.sequence}
    echo |= {"session_id": sent.session_id or "opened", "first_control_step": sent.control_step, "served_s": 0.0}
    echo |= {"deadline": "met" if has_deadline else "none", "slack_s": 1.0 if has_deadline else None, "stage_s": {}}
    return reply(**echo | changes)


async def worked(group: RobotGroup, transport: FakeTransport, until: float, deadline_ms: int | None = None) -> EventLog:
    log = EventLog()
    robot = Robot(Identity("arm-0", "arm", group, seed=1), Frames.recorded(), log, transport.clock)
    await robot.work(Assignment("phase", until, ClosedLoop(), transport, deadline_ms))
    return log


def arm(**changes: Any) -> RobotGroup:
    """Executes eight steps of a chunk at 10 Hz (0.8 s) and requests the next chunk when four steps remain (0.4 s)."""
    return RobotGroup(**{"edge": "grpc", "control_hz": 10.0, "executed": 8, "replan_at": 4, **changes})


async def test_a_fast_service_causes_no_stall() -> None:
    transport = FakeTransport(FakeClock(), seconds=0.3)
    log = await worked(arm(), transport, until=3.0)
    assert log.stalls == []
    # the first chunk begins at 0.3 s, then one begins every 0.8 s; each is requested 0.4 s before
    assert [at for at, _ in transport.sent] == pytest.approx([0.0, 0.7, 1.5, 2.3])
    steps = [(sent.sequence, sent.control_step, sent.executed_steps) for _, sent in transport.sent]
    assert steps == [(0, 0, 0), (1, 4, 4), (2, 12, 8), (3, 20, 8)]
    assert [sent.session_id for _, sent in transport.sent] == [None, "opened", "opened", "opened"]
    assert [request.contradictions for request in log.requests] == [()] * 4


async def test_a_slow_service_causes_stalls() -> None:
    """Each chunk is requested 0.4 s before the last one ends and answered after 1 s, so the robot stalls for 0.6 s."""
    transport = FakeTransport(FakeClock(), seconds=1.0)
    log = await worked(arm(), transport, until=4.2)
    assert [at for at, _ in transport.sent] == pytest.approx([0.0, 1.4, 2.8])
    assert [one.stall.at for one in log.stalls] == pytest.approx([1.8, 3.2])
    assert [one.stall.seconds for one in log.stalls] == pytest.approx([0.6, 0.6])
    assert [sent.control_step for _, sent in transport.sent] == [0, 4, 12], "steps that were not executed do not count"


async def test_a_request_without_enough_time_is_refused() -> None:
    """The service refuses it before its deadline, and says nothing of a missed one."""
    transport = FakeTransport(FakeClock(), 0.01, errors=[DeadlineExceeded("too short"), MISSED, None])
    log = await worked(arm(), transport, until=0.1, deadline_ms=100)
    assert [request.outcome for request in log.requests] == ["refused", "missed", "answered"]


async def test_a_chunk_that_never_comes_is_a_stall_until_the_end() -> None:
    transport = FakeTransport(FakeClock(), 0.1, errors=[None, *[MISSED] * 100])
    log = await worked(arm(), transport, until=3.0, deadline_ms=100)
    [stall] = log.stalls
    assert (stall.stall.at, stall.stall.seconds) == pytest.approx((0.9, 2.1))
    assert {request.outcome for request in log.requests[1:]} == {"missed"}
    sequences = [sent.sequence for _, sent in transport.sent]
    assert sequences == list(range(len(sequences))), "each request has a number of its own"


async def test_a_refused_robot_waits_for_the_retry_time() -> None:
    errors = [Overloaded("full", 0.7), Overloaded("full", 0.2), None]
    transport = FakeTransport(FakeClock(), 0.1, list(errors))
    log = await worked(arm(), transport, until=1.3)
    assert [at for at, _ in transport.sent] == pytest.approx([0.0, 0.8, 1.1])
    assert [(request.outcome, request.retry_after_s) for request in log.requests] == [
        ("refused", 0.7),
        ("refused", 0.2),
        ("answered", None),
    ]
    without_backoff = FakeTransport(FakeClock(), 0.1, list(errors))
    await worked(arm(honours_retry_after=False), without_backoff, until=0.3)
    assert [at for at, _ in without_backoff.sent] == pytest.approx([0.0, 0.11, 0.22])


async def test_other_failures_are_recorded_and_followed_by_a_wait() -> None:
    errors = [None, UnknownSession("session_id", "one", "x"), NotReady("soon"), RequestLost("gone")]
    transport = FakeTransport(FakeClock(), 0.1, errors)
    log = await worked(arm(executed=0, replan_at=0), transport, until=1.9)
    assert [request.outcome for request in log.requests] == ["answered", "failed", "failed", "lost"]
    assert [sent.session_id for _, sent in transport.sent] == [None, "opened", None, None], "it opens another session"
    assert transport.sent[2][0] - transport.sent[1][0] == pytest.approx(0.1 + AFTER_FAILURE_S)
    assert log.requests[2].message == "NotReady: soon"
    assert log.in_flight == 0


async def test_a_robot_pauses_before_every_request() -> None:
    transport = FakeTransport(FakeClock(), seconds=0.1)
    await worked(arm(executed=0, replan_at=0, think_s=0.2, jitter_s=0.1), transport, until=2.0)
    gaps = [later - earlier for (earlier, _), (later, _) in zip(transport.sent, transport.sent[1:], strict=False)]
    assert all(0.3 <= gap <= 0.4 for gap in gaps)
    assert len({round(gap, 6) for gap in gaps}) > 1


async def test_open_loop_slots_come_at_their_rate_and_end() -> None:
    pacing = OpenLoop(100.0)
    until = asyncio.get_running_loop().time() + 0.2
    first, second, _ = await asyncio.gather(slots_until_over(pacing), slots_until_over(pacing), pacing.issue(until))
    assert pacing.used == first + second
    assert pacing.used + pacing.unused == pytest.approx(20, abs=2)


async def slots_until_over(pacing: OpenLoop) -> int:
    """How many slots one robot gets before the phase is over."""
    num_granted = 0
    while await pacing.slot():
        num_granted += 1
    return num_granted


def test_waiting_for_a_slot_is_no_stall() -> None:
    playback = Playback.of(arm())
    playback.begin(1.0)
    playback.extend_to(9.0)
    assert playback.begin(9.5) == Stall(9.0, 0.5)
    playback.pause(20.0)
    assert playback.begin(30.0) is None
    assert playback.step(30.25) == 16 + 2


MISSED = DeadlineExceeded("late", MissedDeadline(-1.0, 0, 8, 3))
SENT = Observation(images=(), state=(), instruction="", session_id="s", sequence=4, control_step=8, deadline_ms=1000)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"sequence": 3}, "sequence: sent 4, answered 3, receipt 4"),
        ({"receipt_sequence": 5}, "sequence: sent 4, answered 4, receipt 5"),
        ({"session_id": "t"}, "the answer belongs to another session"),
        ({"first_control_step": 9}, "control step: sent 8, answered 9"),
        ({"num_steps": 7}, "a chunk of 7 steps, expected at least 12"),
        ({"iterations_done": 2}, "receipt: deadline met with 2 of 3 iterations, expected met_degraded"),
        ({"deadline": "none"}, "receipt: deadline none with 3 of 3 iterations, expected met"),
        ({"slack_s": None}, "receipt: slack None with a deadline of 1000 ms"),
        ({"slack_s": -0.5}, "receipt: deadline met with 3 of 3 iterations, expected late"),
        ({"served_s": 2.0}, "served in 2.0000 s, longer than the robot waited, 1.0000 s"),
        ({"stage_s": {"total": 0.5}}, "receipt: its total is longer than the service took"),
    ],
)
def test_a_reply_that_contradicts_its_request_or_itself_is_reported(changes: dict[str, Any], text: str) -> None:
    assert list(contradictions(SENT, answer(SENT), 1.0, min_steps=12)) == []
    assert list(contradictions(SENT, answer(SENT, **changes), 1.0, min_steps=12)) == [text]
