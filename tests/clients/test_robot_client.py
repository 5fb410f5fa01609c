"""Both robot clients over real streams: what they send and give, and every way in which a link can fail."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pytest

from tests.clients.gateways import DT_S, POLICY, ROBOT, Gateway, Stream, gateway, observation_at
from tests.clients.servers import black_hole, resetting
from wavserve.clients.async_robot_client import AsyncRobotClient
from wavserve.clients.chunk_order import Refusal
from wavserve.clients.player import ActionPlayer
from wavserve.clients.player_config import PlayerConfig
from wavserve.clients.robot import Event, LinkDown, RobotOptions, Stopped
from wavserve.clients.robot_client import RobotClient
from wavserve.core.control import (
    ControlObservation,
    DropReason,
    ExecutionReport,
    GoAway,
    ObservationDropped,
    ResetAck,
    StreamError,
    Welcome,
)
from wavserve.core.errors import (
    ClientClosed,
    ContractMismatch,
    DeadlineExceeded,
    InvalidAnswer,
    InvalidRequest,
    NotReady,
    RobotBusy,
    StaleEpoch,
    Unsupported,
)
from wavserve.core.messages import ActionChunk

E = TypeVar("E")
FAST = RobotOptions(backoff_s=(0.02, 0.1), ping_interval_s=0.02, link_timeout_s=0.3, jpeg_quality=None)
PATIENCE_S = 30.0


@pytest.fixture
def served() -> Iterator[Gateway]:
    with gateway() as running:
        yield running


@pytest.fixture
def robot(served: Gateway) -> Iterator[RobotClient]:
    with RobotClient(served.address, ROBOT, FAST) as client:
        client.connect(PATIENCE_S)
        assert isinstance(client.poll(), Welcome)
        yield client


def next_event(client: RobotClient, kind: type[E]) -> E:
    """The next event of a kind; the ones before it are dropped."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        event = client.poll()
        if isinstance(event, kind):
            return event
        if event is None:
            time.sleep(0.002)
    raise AssertionError(f"no {kind.__name__}")


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_a_chunk_answers_an_observation(served: Gateway, robot: RobotClient) -> None:
    picture = np.arange(128 * 128 * 3, dtype=np.uint8).reshape(128, 128, 3)
    images = {"agentview": picture, "wrist": picture}
    assert robot.observe(observation_at(5, images=images, instruction="pour")) == 0
    images["agentview"][:] = 0  # the program may use its buffer again
    chunk = next_event(robot, ActionChunk)
    assert (chunk.sequence, chunk.first_control_step, chunk.epoch) == (0, 5, 1)
    [seen] = served.stream.observations
    assert (seen.instruction, seen.epoch, seen.images[0].encoding) == ("pour", 1, "raw_rgb8")
    assert seen.images[0].data == np.arange(128 * 128 * 3, dtype=np.uint8).tobytes()
    assert 0 < time.monotonic_ns() - chunk.captured_mono_ns < PATIENCE_S * 1e9
    assert robot.link.connected
    assert not robot.link.lost
    assert served.stream.hello.robot_id == "arm-1"


async def test_the_async_client_gives_the_same(served: Gateway) -> None:
    got: asyncio.Queue[Event] = asyncio.Queue()
    async with AsyncRobotClient(served.address, ROBOT, FAST, got.put_nowait) as client:
        assert (await client.connect(PATIENCE_S)).epoch == 1
        assert isinstance(await got.get(), Welcome)
        client.observe(observation_at(0))
        assert isinstance(await asyncio.wait_for(got.get(), PATIENCE_S), ActionChunk)
        client.reset()
        assert await asyncio.wait_for(got.get(), PATIENCE_S) == ResetAck(1, 2, 0)
        client.report(ExecutionReport(chunk_id="c", executed_to_step=4))
        assert client.poll() is None
    until(lambda: [each for each in served.stream.received if isinstance(each, ExecutionReport)])
    with pytest.raises(ClientClosed):
        await client.connect()


def test_only_the_newest_observation_is_sent_while_a_write_is_pending(served: Gateway, robot: RobotClient) -> None:
    """A burst from the camera: what is not yet written is replaced, and told."""
    sequences = [robot.observe(observation_at(step)) for step in range(200)]
    assert sequences == list(range(200))
    until(lambda: served.stream.observations and served.stream.observations[-1].sequence == 199)
    sent = [each.sequence for each in served.stream.observations]
    assert sent == sorted(set(sent))
    answered: set[int] = set()
    while len(answered) < 200:
        event = robot.poll()
        if isinstance(event, ActionChunk | ObservationDropped):
            answered.add(event.sequence)
    assert len(sent) < 200


def test_a_restarted_server_begins_a_new_epoch(served: Gateway, robot: RobotClient) -> None:
    robot.observe(observation_at(0))
    next_event(robot, ActionChunk)
    served.stop()
    down = next_event(robot, LinkDown)
    assert isinstance(down.error, NotReady)
    assert robot.link.lost
    assert robot.observe(observation_at(3)) is None
    served.committed = 9
    served.restart()
    again = next_event(robot, Welcome)
    assert again.epoch == 2
    assert served.stream.hello.resume_session_id == "session-1"
    assert robot.observe(observation_at(7)) == 9
    assert next_event(robot, ActionChunk).epoch == 2
    assert robot.connect(PATIENCE_S) == again


def test_a_silent_link_is_lost_and_given_up(served: Gateway, robot: RobotClient) -> None:
    """The connection stands and nobody answers: the pings show it."""
    time.sleep(2 * FAST.link_timeout_s)
    assert not robot.link.lost, "pings keep an idle link alive"
    served.stream.mute = True
    until(lambda: robot.link.lost)
    assert "no message for 0.3 s" in str(next_event(robot, LinkDown).error)
    assert next_event(robot, Welcome).epoch == 2


def test_chunks_twice_out_of_order_and_of_before_never_move_the_player_back(served: Gateway) -> None:
    held: list[ControlObservation] = []

    def answer(stream: Stream, seen: ControlObservation) -> None:
        held.append(seen)
        if len(held) == 3:
            first, second, third = held
            stream.send(stream.chunk(second, first=10), stream.chunk(first), stream.chunk(second, first=10))
            stream.send(stream.chunk(third, epoch=0), stream.chunk(third, first=20))

    served.answer = answer
    with RobotClient(served.address, ROBOT, FAST) as robot:
        player = ActionPlayer(PlayerConfig(blend="replace"), len(POLICY.action.names), DT_S)
        began = robot.connect(PATIENCE_S)
        player.begin_epoch(began.session_id, began.epoch)
        for step in range(3):
            robot.observe(observation_at(step))
            until(lambda step=step: len(served.stream.observations) > step)
            player.command(step)
        offers = [player.offer(next_event(robot, ActionChunk), 3).refusal for _ in range(4)]
        assert offers == [None, Refusal.OLDER, Refusal.DUPLICATE, None]
        action = player.command(3).action
        assert action is not None
        assert action[0] == 20


def test_an_error_of_one_observation_keeps_the_stream(served: Gateway, robot: RobotClient) -> None:
    refusal = StreamError(name="overloaded", message="full", sequence=0, epoch=1, retryable=True, retry_after_ms=50)
    served.answer = lambda stream, seen: stream.send(refusal if seen.sequence == 0 else stream.chunk(seen))
    robot.observe(observation_at(0))
    assert next_event(robot, StreamError) == refusal
    robot.observe(observation_at(1))
    assert next_event(robot, ActionChunk).sequence == 1
    robot.observe(observation_at(2, state=(float("nan"), "x")))
    bad = next_event(robot, StreamError)
    assert (bad.sequence, bad.field) == (2, "state[1]")
    robot.observe(observation_at(2, images={"agentview": np.zeros((1, 1, 3), np.uint8)}))
    assert next_event(robot, StreamError).field == "images.agentview"
    with pytest.raises(InvalidRequest):
        robot.report(ExecutionReport(executed_to_step=-1))
    robot.observe(observation_at(3))
    assert next_event(robot, ActionChunk).sequence == 4
    assert len(served.streams) == 1


def test_another_policy_after_a_restart_stops_the_client(served: Gateway, robot: RobotClient) -> None:
    served.policy = replace(POLICY, digest="e" * 64)
    served.stop()
    served.restart()
    stopped = next_event(robot, Stopped)
    assert isinstance(stopped.error, ContractMismatch)
    assert stopped.error.field == "policy_digest"
    assert robot.stopped is stopped.error
    with pytest.raises(ContractMismatch):
        robot.connect()
    assert robot.observe(observation_at(0)) is None
    assert len(served.streams) == 1


def test_an_unreadable_message_ends_its_stream_and_the_robot_goes_on(served: Gateway, robot: RobotClient) -> None:
    for number in range(1, 3):
        served.stream.send(b"\xff\xff garbage")
        assert isinstance(next_event(robot, LinkDown).error, InvalidAnswer)
        assert next_event(robot, Welcome).epoch == number + 1
        assert robot.link.num_unreadable == number
    robot.observe(observation_at(0))
    next_event(robot, ActionChunk)


def test_a_robot_that_differs_from_the_policy_sends_nothing(served: Gateway) -> None:
    with RobotClient(served.address, replace(ROBOT, control_hz=30.0), FAST) as robot:
        with pytest.raises(ContractMismatch, match=r"control_hz: expected 20\.0, got 30\.0"):
            robot.connect(PATIENCE_S)
        assert served.streams == []


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (StreamError(name="robot-busy", message="arm-1 is connected", retryable=True, fatal=True), RobotBusy),
        (
            StreamError(
                name="contract-mismatch", message="x", field="action.units", expected="a", actual="b", fatal=True
            ),
            ContractMismatch,
        ),
    ],
)
def test_what_the_server_says_to_hello_is_raised(served: Gateway, refusal: StreamError, error: type[Exception]) -> None:
    served.refusal = refusal
    with RobotClient(served.address, ROBOT, FAST) as robot:
        with pytest.raises(error):
            robot.connect(1.0)
        assert isinstance(robot.stopped, error)


def test_a_stream_that_another_one_took_over_is_not_taken_back(served: Gateway, robot: RobotClient) -> None:
    """Two clients would otherwise take the session from each other without end."""
    taken = StreamError(name="stale-epoch", message="x", field="epoch", expected="2", actual="1", fatal=True)
    served.stream.send(taken)
    assert isinstance(next_event(robot, LinkDown).error, StaleEpoch)
    assert next_event(robot, Welcome).session_id == "session-2"
    assert served.stream.hello.resume_session_id is None


def test_a_drained_server_is_left_and_its_successor_resumed(served: Gateway, robot: RobotClient) -> None:
    served.stream.send(GoAway(1000, "drain"))
    next_event(robot, GoAway)
    assert robot.observe(observation_at(0)) is None
    served.stream.end()
    assert next_event(robot, Welcome).resumed
    assert robot.observe(observation_at(1)) is not None
    next_event(robot, ActionChunk)


def test_a_reset_drops_what_was_planned_before(served: Gateway, robot: RobotClient) -> None:
    planning = threading.Event()
    served.answer = lambda stream, seen: planning.set()
    robot.observe(observation_at(0))
    assert planning.wait(PATIENCE_S)
    [seen] = served.stream.observations
    late = served.stream.chunk(seen)
    robot.reset()
    assert next_event(robot, ResetAck).epoch == 2
    served.stream.send(late)
    assert next_event(robot, ObservationDropped) == ObservationDropped(0, DropReason.RESET, 0, 1)


def test_a_black_hole_is_not_waited_for() -> None:
    options = replace(FAST, attempt_timeout_s=0.2)
    with black_hole() as address, RobotClient(address, ROBOT, options) as robot:
        with pytest.raises((DeadlineExceeded, NotReady)):
            robot.connect(1.0)
        assert robot.link.lost


def test_closing_is_bounded_and_frees_the_robot_id(served: Gateway) -> None:
    robot = RobotClient(served.address, ROBOT, FAST)
    robot.connect(PATIENCE_S)
    stream = served.stream
    stream.mute = True
    began = time.monotonic()
    robot.close()
    robot.close()
    assert time.monotonic() - began < 5.0
    until(lambda: [each for each in stream.received if type(each).__name__ == "Bye"])
    with pytest.raises(ClientClosed):
        robot.connect()
    assert robot.observe(observation_at(0)) is None


def test_a_failing_program_does_not_end_the_link(served: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    got: list[Event] = []

    def fail(event: Event) -> None:
        got.append(event)
        raise ZeroDivisionError

    with RobotClient(served.address, ROBOT, FAST, fail) as robot:
        robot.connect(PATIENCE_S)
        robot.observe(observation_at(0))
        until(lambda: len(got) == 2)
        assert robot.link.connected
    assert "the program failed at Welcome" in caplog.text


def test_a_server_without_the_contract_is_named() -> None:
    with resetting() as address, RobotClient(address, ROBOT, FAST) as robot, pytest.raises(Unsupported):
        robot.connect(PATIENCE_S)
