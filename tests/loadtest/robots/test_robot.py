"""A simulated robot on a clock of its own: when it asks, what it tells of itself, when it stands still."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from loadtest.robots.answers import Reply, faults
from loadtest.robots.chunks import Playback, Stall
from loadtest.robots.frames import Frames
from loadtest.robots.journal import Journal
from loadtest.robots.robot import AFTER_FAILURE_S, Identity, Robot, Shift
from loadtest.robots.scenario import RobotGroup
from loadtest.robots.turns import FreeTurns, ToldTurns
from loadtest.robots.wires import Lost
from tests.loadtest.robots.rig import reply
from wavserve.core.errors import DeadlineExceeded, NotReady, Overloaded, UnknownSession
from wavserve.core.messages import Observation


@dataclass
class FakeClock:
    """Time that passes only where somebody waits for it."""

    time: float = 0.0

    def now(self) -> float:
        return self.time

    async def sleep_until(self, when: float) -> None:
        self.time = max(self.time, when)


@dataclass
class FakeWire:
    """Answers after `seconds`, or raises what stands first in `errors`; keeps what it was asked."""

    clock: FakeClock
    seconds: float
    errors: list[Exception | None] = field(default_factory=list)
    asked: list[tuple[float, Observation]] = field(default_factory=list)

    async def ask(self, observation: Observation) -> Reply:
        self.asked.append((self.clock.time, observation))
        self.clock.time += self.seconds
        if self.errors and (error := self.errors.pop(0)) is not None:
            raise error
        return answer(observation)

    async def close(self) -> None: ...


def answer(asked: Observation, **changes: Any) -> Reply:
    bounded = asked.deadline_ms is not None
    echo: dict[str, Any] = {"sequence": asked.sequence, "receipt_sequence": asked.sequence}
    echo |= {"session_id": asked.session_id or "opened", "first_control_step": asked.control_step, "served_s": 0.0}
    echo |= {"deadline": "met" if bounded else "none", "slack_s": 1.0 if bounded else None, "stage_s": {}}
    return reply(**echo | changes)


def worked(group: RobotGroup, wire: FakeWire, until: float, deadline_ms: int | None = None) -> Journal:
    journal = Journal()
    robot = Robot(Identity("arm-0", "arm", group, seed=1), Frames.recorded(), journal, wire.clock)
    asyncio.run(robot.work(Shift("phase", until, FreeTurns(), wire, deadline_ms)))
    return journal


def arm(**changes: Any) -> RobotGroup:
    """Eight steps of a chunk at 10 Hz, 0.8 s; the next is asked for when four remain, after 0.4 s."""
    return RobotGroup(**{"edge": "grpc", "control_hz": 10.0, "executed": 8, "replan_at": 4, **changes})


def test_a_quick_service_lets_no_robot_stand_still() -> None:
    wire = FakeWire(FakeClock(), seconds=0.3)
    journal = worked(arm(), wire, until=3.0)
    assert journal.stalls == []
    # the first chunk begins at 0.3 and is followed by one every 0.8 s, asked for 0.4 s before
    assert [at for at, _ in wire.asked] == pytest.approx([0.0, 0.7, 1.5, 2.3])
    told = [(sent.sequence, sent.control_step, sent.executed_steps) for _, sent in wire.asked]
    assert told == [(0, 0, 0), (1, 4, 4), (2, 12, 8), (3, 20, 8)]
    assert [sent.session_id for _, sent in wire.asked] == [None, "opened", "opened", "opened"]
    assert [ask.faults for ask in journal.asks] == [()] * 4


def test_a_slow_service_makes_it_stand_still() -> None:
    """Asked for 0.4 s before the chunk ends and answered after 1 s: 0.6 s without a command, chunk after chunk."""
    wire = FakeWire(FakeClock(), seconds=1.0)
    journal = worked(arm(), wire, until=4.2)
    assert [at for at, _ in wire.asked] == pytest.approx([0.0, 1.4, 2.8])
    assert [one.stall.at for one in journal.stalls] == pytest.approx([1.8, 3.2])
    assert [one.stall.seconds for one in journal.stalls] == pytest.approx([0.6, 0.6])
    assert [sent.control_step for _, sent in wire.asked] == [0, 4, 12], "steps that were not executed do not count"


def test_a_chunk_that_never_comes_is_a_stall_to_the_end() -> None:
    wire = FakeWire(FakeClock(), 0.1, errors=[None, *[DeadlineExceeded("late")] * 100])
    journal = worked(arm(), wire, until=3.0, deadline_ms=100)
    [stall] = journal.stalls
    assert (stall.stall.at, stall.stall.seconds) == pytest.approx((0.9, 2.1))
    assert {ask.outcome for ask in journal.asks[1:]} == {"missed"}
    assert [sent.sequence for _, sent in wire.asked] == list(range(len(wire.asked))), "each ask has a number of its own"


def test_a_refused_robot_comes_again_when_it_was_told_to() -> None:
    errors = [Overloaded("full", 0.7), Overloaded("full", 0.2), None]
    wire = FakeWire(FakeClock(), 0.1, list(errors))
    journal = worked(arm(), wire, until=1.3)
    assert [at for at, _ in wire.asked] == pytest.approx([0.0, 0.8, 1.1])
    assert [(ask.outcome, ask.retry_after_s) for ask in journal.asks] == [
        ("refused", 0.7),
        ("refused", 0.2),
        ("answered", None),
    ]
    rude = FakeWire(FakeClock(), 0.1, list(errors))
    worked(arm(heeds_retry=False), rude, until=0.3)
    assert [at for at, _ in rude.asked] == pytest.approx([0.0, 0.11, 0.22])


def test_other_failures_are_told_and_waited_for() -> None:
    wire = FakeWire(FakeClock(), 0.1, [None, UnknownSession("session_id", "one", "x"), NotReady("soon"), Lost("gone")])
    journal = worked(arm(executed=0, replan_at=0), wire, until=1.9)
    assert [ask.outcome for ask in journal.asks] == ["answered", "failed", "failed", "lost"]
    assert [sent.session_id for _, sent in wire.asked] == [None, "opened", None, None], "it opens another session"
    assert wire.asked[2][0] - wire.asked[1][0] == pytest.approx(0.1 + AFTER_FAILURE_S)
    assert journal.asks[2].words == "NotReady: soon"
    assert journal.under_way == 0


def test_a_robot_thinks_before_it_asks() -> None:
    wire = FakeWire(FakeClock(), seconds=0.1)
    worked(arm(executed=0, replan_at=0, think_s=0.2, jitter_s=0.1), wire, until=2.0)
    gaps = [later - earlier for (earlier, _), (later, _) in zip(wire.asked, wire.asked[1:], strict=False)]
    assert all(0.3 <= gap <= 0.4 for gap in gaps)
    assert len({round(gap, 6) for gap in gaps}) > 1


def test_told_turns_come_at_their_rate_and_end() -> None:
    async def take() -> tuple[ToldTurns, list[bool]]:
        turns = ToldTurns(100.0)
        took: list[bool] = []

        async def robot() -> None:
            while True:
                took.append(await turns.take())
                if not took[-1]:
                    return

        loop = asyncio.get_running_loop()
        await asyncio.gather(robot(), robot(), turns.give(loop.time() + 0.2))
        return turns, took

    turns, took = asyncio.run(take())
    assert turns.given == took.count(True)
    assert turns.given + turns.untaken == pytest.approx(20, abs=2)
    assert took.count(False) == 2


def test_a_robot_that_is_told_its_turn_stands_still_from_then_on() -> None:
    playback = Playback.of(arm())
    playback.begin(1.0)
    playback.last_until(9.0)
    assert playback.begin(9.5) == Stall(9.0, 0.5)
    playback.rest(20.0)
    assert playback.begin(30.0) is None
    assert playback.step(30.25) == 16 + 2


ASKED = Observation(images=(), state=(), instruction="", session_id="s", sequence=4, control_step=8, deadline_ms=1000)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sequence": 3}, "sequence: asked 4, answered 3, receipt 4"),
        ({"receipt_sequence": 5}, "sequence: asked 4, answered 4, receipt 5"),
        ({"session_id": "t"}, "the answer belongs to another session"),
        ({"first_control_step": 9}, "control step: asked 8, answered 9"),
        ({"num_steps": 7}, "a chunk of 7 steps, of which 12 are to be executed"),
        ({"iterations_done": 2}, "receipt: deadline met with 2 of 3 iterations, expected met_degraded"),
        ({"deadline": "none"}, "receipt: deadline none with 3 of 3 iterations, expected met"),
        ({"slack_s": None}, "receipt: slack None with a deadline of 1000 ms"),
        ({"slack_s": -0.5}, "receipt: deadline met with a slack of -0.5000 s"),
        ({"served_s": 2.0}, "served in 2.0000 s, longer than the robot waited, 1.0000 s"),
        ({"stage_s": {"total": 0.5}}, "receipt: its total is longer than the service took"),
    ],
)
def test_an_answer_that_contradicts_itself_is_found_out(changes: dict[str, Any], words: str) -> None:
    assert list(faults(ASKED, answer(ASKED), 1.0, needed=12)) == []
    assert list(faults(ASKED, answer(ASKED, **changes), 1.0, needed=12)) == [words]
