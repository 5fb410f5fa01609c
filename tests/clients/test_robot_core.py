"""The robot client without a network: what it sends, what it tells the program, and when it tries again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.clients.chunks import chunk_of, line
from tests.clients.gateways import POLICY, ROBOT, observation_at
from tests.clock import ManualClock
from wavserve.clients.robot import CameraDescription, LinkDown, RobotDescription, RobotOptions, Stopped
from wavserve.clients.robot_core import RobotCore
from wavserve.core.control import (
    ControlObservation,
    DropReason,
    ExecutionReport,
    GoAway,
    ObservationDropped,
    Ping,
    ResetAck,
    ResetStream,
    StreamError,
    Welcome,
)
from wavserve.core.errors import (
    ContractMismatch,
    InvalidAnswer,
    NotReady,
    RobotBusy,
    SequenceConflict,
    StaleEpoch,
    UnknownSession,
    WavserveError,
)
from wavserve.core.rtc import RtcRequest


def welcome(epoch: int = 1, **changes: Any) -> Welcome:
    given: dict[str, Any] = {
        "session_id": "s",
        "epoch": epoch,
        "server_version": "0",
        "policy": POLICY,
        "dt_ns": 50_000_000,
        "max_in_flight": 1,
        "ping_interval_ms": 100,
        "resumed": False,
        "next_sequence": 0,
        "resume_within_ms": 10_000,
    }
    return Welcome(**(given | changes))


class Rig:
    """A core on a clock of its own, with an open stream."""

    def __init__(
        self,
        options: RobotOptions | None = None,
        robot: RobotDescription = ROBOT,
        targets: Sequence[str] = ("a:1",),
    ) -> None:
        self.clock = ManualClock()
        options = options or RobotOptions()
        self.core = RobotCore(robot, options, self.clock, draw=lambda _, longest: longest, targets=targets)
        self.core.hello(POLICY)
        self.core.opened(welcome())
        self.events()

    def events(self) -> list[Any]:
        found = []
        while (event := self.core.poll()) is not None:
            found.append(event)
        return found

    def written(self) -> ControlObservation:
        """The observation that is written next."""
        waiting = self.core.take()
        assert waiting is not None
        message = self.core.encoded(waiting, ())
        assert message is not None
        return message

    def answer(self, sequence: int, epoch: int = 1) -> None:
        self.core.received(chunk_of(line(0, 1, 4), sequence=sequence, epoch=epoch))


def test_the_newest_observation_wins_and_the_other_is_told() -> None:
    rig = Rig()
    assert [rig.core.observe(observation_at(step)) for step in (3, 4)] == [0, 1]
    assert rig.events() == [ObservationDropped(0, DropReason.SUPERSEDED, 1, 1)]
    message = rig.written()
    assert (message.sequence, message.epoch, message.control_step) == (1, 1, 4)
    assert rig.core.take() is None


def test_executed_steps_count_from_the_observation_that_was_accepted() -> None:
    """While a plan runs, it is the one that the plan is made of."""
    rig = Rig()
    executed = []
    for step, total in ((0, 0), (5, 5), (9, 8)):
        rig.core.observe(observation_at(step, total))
        executed.append(rig.written().executed_steps)
    rig.answer(0)
    rig.answer(2)
    rig.core.observe(observation_at(12, 20))
    executed.append(rig.written().executed_steps)
    assert executed == [0, 5, 8, 12]


def test_a_dropped_observation_does_not_count_as_accepted() -> None:
    rig = Rig()
    for total in (0, 5):
        rig.core.observe(observation_at(total, total))
        rig.written()
    rig.answer(0)
    rig.core.received(ObservationDropped(1, DropReason.TOO_OLD, 0, 1))
    rig.core.observe(observation_at(9, 9))
    assert rig.written().executed_steps == 9


def test_a_resumed_session_goes_on_counting_and_a_fresh_one_begins_anew() -> None:
    for resumed, expected in ((True, 3), (False, 0)):
        rig = Rig()
        rig.core.observe(observation_at(5, 5))
        rig.written()
        rig.core.ended(NotReady("cut"))
        rig.core.opened(welcome(2, resumed=resumed, next_sequence=1))
        assert rig.core.observe(observation_at(8, 8)) == 1
        assert rig.written().executed_steps == expected


def test_an_observation_has_what_the_options_and_the_player_say() -> None:
    rig = Rig(RobotOptions(deadline_ms=200, planner={"num_iterations": 1}, rtc=RtcRequest(mode="rtc_guided")))
    rows = np.ones((3, 7), np.float32)
    rig.core.observe(observation_at(0, instruction="open the drawer", left_over=rows, inference_delay=2))
    message = rig.written()
    assert (message.deadline_ms, message.options, message.instruction) == (
        200,
        {"num_iterations": 1},
        "open the drawer",
    )
    assert message.rtc is not None
    assert (message.rtc.mode, message.rtc.inference_delay) == ("rtc_guided", 0)
    assert message.rtc.prev_chunk_left_over.tolist() == rows.tolist()
    rig.core.ended(NotReady("cut"))
    assert rig.core.hello(POLICY).instruction == "open the drawer"


def test_a_delay_is_at_most_what_is_left_and_what_was_executed() -> None:
    """The server refuses more. After a pause nothing is left, and nothing is continued."""
    rig = Rig()
    delays = []
    for total, left in ((0, 3), (2, 9), (9, 3), (20, 9), (30, 0)):
        rig.core.observe(observation_at(total, total, left_over=np.ones((left, 7), np.float32), inference_delay=5))
        message = rig.written()
        assert message.rtc is not None
        delays.append(message.rtc.inference_delay)
        rig.answer(message.sequence)
    assert delays == [0, 2, 3, 5, 0]


def test_no_observation_is_taken_without_a_stream() -> None:
    rig = Rig()
    rig.core.observe(observation_at(0))
    rig.core.ended(NotReady("cut"))
    assert rig.core.observe(observation_at(1)) is None
    dropped, down = rig.events()
    assert (dropped.reason, dropped.sequence) == (DropReason.RESET, 0)
    assert isinstance(down, LinkDown)
    rig.core.opened(welcome(2))
    assert rig.core.take() is None


def test_an_observation_whose_deadline_passes_in_the_slot_is_dropped() -> None:
    rig = Rig(RobotOptions(deadline_ms=200))
    rig.core.observe(observation_at(0))
    rig.clock.now += 0.3
    assert rig.core.take() is None
    assert rig.events() == [ObservationDropped(0, DropReason.TOO_OLD, 0, 1)]


def test_an_overloaded_server_is_left_alone_for_as_long_as_it_asks() -> None:
    """A program that asks `is_waiting` sends what the robot sees after the pause, not before it."""
    rig = Rig()
    rig.core.observe(observation_at(0))
    rig.written()
    rig.core.received(ObservationDropped(0, DropReason.OVERLOADED, 0, 1, retry_after_ms=500))
    assert rig.core.is_waiting
    rig.core.observe(observation_at(1))
    assert rig.core.take() is None
    rig.core.observe(observation_at(2))
    rig.clock.now += 0.5
    waiting = rig.core.take()
    assert waiting is not None
    assert waiting.observation.control_step == 2, "the newest one"
    rig.core.received(ObservationDropped(waiting.sequence, DropReason.SUPERSEDED, 0, 1))
    assert not rig.core.is_waiting


def test_no_chunk_from_before_a_reset_is_given() -> None:
    rig = Rig()
    rig.core.observe(observation_at(0, 4))
    rig.written()
    rig.core.observe(observation_at(1, 5))
    rig.core.reset()
    rig.core.reset()
    assert rig.core.observe(observation_at(2)) is None
    rig.answer(0)
    rig.core.received(ResetAck(1, 2, 7))
    rig.answer(0)
    assert [rig.core.next_control(), rig.core.next_control()] == [ResetStream(1), None]
    kinds = [type(event) for event in rig.events()]
    assert kinds == [ObservationDropped, ObservationDropped, ResetAck, ObservationDropped]
    assert rig.core.observe(observation_at(9, 9)) == 7
    message = rig.written()
    assert (message.epoch, message.executed_steps) == (2, 0)


def test_an_observation_that_is_encoded_during_a_reset_is_not_sent() -> None:
    rig = Rig()
    rig.core.observe(observation_at(0))
    waiting = rig.core.take()
    assert waiting is not None
    rig.core.reset()
    assert rig.core.encoded(waiting, ()) is None


def test_a_reset_holds_when_the_stream_ends_before_its_answer() -> None:
    """Another stream would otherwise resume the session with its memory."""
    rig = Rig()
    assert rig.core.hello(POLICY).resume_session_id == "s"
    rig.core.reset()
    rig.core.ended(NotReady("cut"))
    assert rig.core.hello(POLICY).resume_session_id is None


def test_pings_do_not_pile_up_and_silence_is_noticed() -> None:
    rig = Rig(RobotOptions(link_timeout_s=0.5))
    rig.core.ping()
    rig.core.ping()
    assert isinstance(rig.core.next_control(), Ping)
    assert rig.core.next_control() is None
    rig.clock.now += 0.4
    assert not rig.core.link.lost
    rig.clock.now += 0.2
    assert rig.core.link.lost
    assert rig.core.is_silent
    rig.core.received(None)  # a message of a kind that this version does not know
    assert not rig.core.is_silent


def test_reports_wait_in_bounds() -> None:
    rig = Rig()
    for step in range(100):
        rig.core.report(ExecutionReport(executed_from_step=step))
    waiting = []
    while (message := rig.core.next_control()) is not None:
        waiting.append(message)
    assert [each.executed_from_step for each in waiting if isinstance(each, ExecutionReport)] == list(range(84, 100))


def test_a_draining_server_gets_no_more_observations() -> None:
    rig = Rig()
    rig.core.observe(observation_at(0))
    rig.core.received(GoAway(1000, "drain"))
    assert rig.core.observe(observation_at(1)) is None
    assert [type(event) for event in rig.events()] == [ObservationDropped, GoAway]


def test_pauses_grow_and_begin_anew_after_a_stream_that_lived() -> None:
    rig = Rig(RobotOptions(backoff_s=(0.25, 5.0)))
    pauses = [rig.core.ended(NotReady("cut")) for _ in range(7)]
    assert pauses == [0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    rig.core.opened(welcome(2))
    assert rig.core.ended(NotReady("at once")) == 5.0
    rig.core.opened(welcome(3))
    rig.clock.now += 6
    assert rig.core.ended(NotReady("cut")) == 0.25


@pytest.mark.parametrize(
    ("error", "stops"),
    [
        (NotReady("x"), False),
        (RobotBusy("x"), False),
        (WavserveError("x"), False),
        (UnknownSession("session_id", "a session", "s"), False),
        (ContractMismatch("embodiment", "a", "b"), True),
        (StaleEpoch("epoch", 2, 1), False),
        (SequenceConflict("sequence", 2, 1), True),
        (InvalidAnswer("x"), False),
    ],
)
def test_an_error_that_needs_a_decision_stops_the_client(error: WavserveError, stops: bool) -> None:
    rig = Rig()
    assert (rig.core.ended(error) is None) == stops
    assert (rig.core.stopped is error) == stops
    assert [type(event) for event in rig.events()] == [Stopped if stops else LinkDown]
    resumes = rig.core.hello(POLICY).resume_session_id
    assert resumes == (None if isinstance(error, StaleEpoch | UnknownSession) else "s")


def test_a_living_stream_of_the_same_robot_id_stops_a_client_that_never_had_one() -> None:
    fresh = RobotCore(ROBOT, RobotOptions(), ManualClock())
    assert fresh.ended(RobotBusy("x")) is None
    for core in (RobotCore(ROBOT, RobotOptions(resume_session_id="s"), ManualClock()), Rig().core):
        assert core.ended(RobotBusy("x")) is not None
        events = iter(core.poll, None)
        [down] = [event for event in events if isinstance(event, LinkDown)]
        assert "earlier stream of this client" in down.error.message


def test_unreadable_messages_are_counted() -> None:
    rig = Rig()
    for number in range(1, 4):
        assert rig.core.ended(InvalidAnswer("x")) is not None
        assert rig.core.link.num_unreadable == number


@pytest.mark.parametrize(
    ("robot", "field", "expected", "actual"),
    [
        ({"embodiment": "other"}, "embodiment", "example_arm", "other"),
        ({"control_hz": 30.0}, "control_hz", "20.0", "30.0"),
        ({"state": replace(POLICY.state, names=POLICY.state.names[::-1])}, "state.names", "", ""),
        ({"action": replace(POLICY.action, units=("deg",) * 7)}, "action.units", "", ""),
        ({"action": replace(POLICY.action, statistics_digest="0" * 64)}, "action.statistics_digest", "", "0" * 64),
        ({"cameras": (CameraDescription("top"),)}, "cameras", "['agentview', 'wrist']", "['top']"),
    ],
)
def test_a_difference_from_the_policy_is_named(robot: dict[str, Any], field: str, expected: str, actual: str) -> None:
    core = RobotCore(replace(ROBOT, **robot), RobotOptions(), ManualClock())
    with pytest.raises(ContractMismatch) as caught:
        core.hello(POLICY)
    assert caught.value.field == field
    assert expected in caught.value.expected
    assert actual in caught.value.actual


def test_another_policy_after_a_reconnection_is_a_mismatch() -> None:
    rig = Rig()
    rig.core.ended(NotReady("cut"))
    changed = replace(POLICY, digest="e" * 64)
    with pytest.raises(ContractMismatch, match=f"policy_digest: expected {POLICY.digest}"):
        rig.core.hello(changed)
    with pytest.raises(ContractMismatch):
        rig.core.opened(welcome(2, policy=changed))
    with pytest.raises(ContractMismatch):
        RobotCore(ROBOT, RobotOptions(policy_digest="f" * 64), ManualClock()).hello(POLICY)


def test_an_observation_that_cannot_be_encoded_is_an_error_of_it() -> None:
    rig = Rig()
    rig.core.observe(observation_at(0))
    waiting = rig.core.take()
    assert waiting is not None
    rig.core.failed(waiting, ContractMismatch("images.wrist", "a", "b"))
    [event] = rig.events()
    assert (event.name, event.field, event.fatal) == ("contract-mismatch", "images.wrist", False)


def test_the_program_knows_whether_the_latest_observation_has_an_answer() -> None:
    rig = Rig()
    answers: list[Callable[[], object]] = [
        lambda: rig.answer(1),
        lambda: rig.core.received(ObservationDropped(2, DropReason.TOO_OLD, 0, 1)),
        lambda: rig.core.received(StreamError(name="not-ready", message="", sequence=3)),
        lambda: rig.core.received(ResetAck(0, 2, 0)),
        lambda: rig.core.ended(NotReady("cut")),
    ]
    rig.core.observe(observation_at(0))
    for answer in answers:
        rig.core.observe(observation_at(0))
        rig.written()
        assert rig.core.is_waiting
        answer()
        assert not rig.core.is_waiting


def test_the_latency_is_from_capture_to_chunk() -> None:
    rig = Rig()
    for sequence, latency_s in enumerate((9.0, 0.25)):
        captured_ns = round(rig.clock() * 1e9) + 1
        rig.clock.now += latency_s
        rig.core.received(chunk_of(line(0, 1, 4), sequence=sequence, captured_mono_ns=captured_ns))
    assert rig.core.latency.p95_s == pytest.approx(0.25, abs=1e-6)


TWO = ("a:1", "b:1")


def test_a_link_that_moves_to_another_gateway_is_lost_only_when_none_answers_in_time() -> None:
    rig = Rig(targets=TWO)
    first = rig.core.gateway
    rig.clock.now += 0.2
    assert rig.core.ended(NotReady("the server ended the stream")) == 0.0
    assert rig.core.gateway != first
    link = rig.core.link
    assert (link.connected, link.lost, link.silent_s) == (False, False, pytest.approx(0.2))
    rig.clock.now += 0.4
    assert rig.core.link.lost
    rig.core.opened(welcome(2, resumed=True))
    assert (rig.core.link.lost, rig.core.link.resumed) == (False, True)
    rig.core.received(ResetAck(1, 3, 0))
    assert not rig.core.link.resumed


def test_a_link_is_lost_at_once_when_no_other_gateway_is_left() -> None:
    rig = Rig(targets=TWO)
    for lost in (False, True):
        rig.core.ended(NotReady("refused"))
        assert rig.core.link.lost == lost
    alone = Rig()
    alone.core.ended(NotReady("the server ended the stream"))
    assert alone.core.link.lost


def test_a_gateway_without_models_hands_its_robots_over() -> None:
    refusal = StreamError(name="not-ready", message="the models are being repaired", sequence=0, epoch=1)
    alone = Rig()
    alone.core.received(refusal)
    assert alone.events() == [refusal]
    with pytest.raises(NotReady, match="repaired"):
        Rig(targets=TWO).core.received(refusal)
    Rig(targets=TWO).core.received(replace(refusal, name="unsafe-chunk"))


def test_the_first_policy_is_the_only_one_of_all_gateways() -> None:
    rig = Rig(targets=TWO)
    rig.core.ended(NotReady("the server ended the stream"))
    with pytest.raises(ContractMismatch) as caught:
        rig.core.hello(replace(POLICY, digest="e" * 64))
    assert (caught.value.expected, caught.value.actual) == (POLICY.digest, "e" * 64)
    assert rig.core.ended(caught.value) is None
    assert isinstance(rig.core.stopped, ContractMismatch)
    assert "the server ended the stream" in rig.core.stopped.message
