"""The plugin's session over a robot's stream, against a gateway whose answers a test decides."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lerobot_policy_wavserve.sessions import Asking, Moment, Seen
from lerobot_policy_wavserve.streams import StreamSession
from tests.clients.gateways import POLICY, Gateway, Stream, gateway
from tests.integrations.policies import rows, seen
from wavserve.core.control import Bye, ControlObservation, DropReason, GoAway, ObservationDropped, StreamError
from wavserve.core.errors import ContractMismatch, DeadlineExceeded, NotReady, Overloaded, UnsafeChunk, WavserveError
from wavserve.core.rendezvous import ranked
from wavserve.core.rtc import RtcRequest


def moment(step: int, executed: int = 0, **changes: Any) -> Moment:
    return Moment(control_step=step, executed_steps=executed, **changes)


@contextmanager
def session_at(server: Gateway, seed: int | None = None, **asking: Any) -> Iterator[StreamSession]:
    session = StreamSession(server.address, "arm-0", POLICY, Asking(**asking))
    session.begin(seed)
    yield session
    session.close()


@pytest.fixture
def server() -> Iterator[Gateway]:
    with gateway() as served:
        yield served


def test_plans_travel_over_one_stream(server: Gateway) -> None:
    asks = {"planner": {"num_iterations": 1}, "rtc": RtcRequest(mode="rtc_guided"), "deadline_ms": 60_000}
    with session_at(server, seed=7, **asks) as session:
        first = session.plan(seen(), moment(0))
        session.plan(seen(), moment(3, 3, left_over=rows(0.5), inference_delay=2))
    assert first.first_control_step == 0
    [stream] = server.streams
    assert (stream.hello.robot_id, stream.hello.policy_digest) == ("arm-0", POLICY.digest)
    one, two = stream.observations
    assert (one.seed, one.deadline_ms, one.options) == (7, 60_000, {"num_iterations": 1})
    assert (one.instruction, two.control_step, two.executed_steps) == ("task 0", 3, 3)
    assert two.rtc is not None
    assert (two.rtc.mode, two.rtc.inference_delay) == ("rtc_guided", 2)
    assert np.array_equal(two.rtc.prev_chunk_left_over, rows(0.5))
    assert any(isinstance(each, Bye) for each in stream.received)


def test_an_episode_has_a_stream_of_its_own(server: Gateway) -> None:
    with session_at(server, seed=1) as session:
        session.plan(seen(), moment(0))
        session.begin(2)
        session.plan(seen(), moment(0))
    assert [each.hello.resume_session_id for each in server.streams] == [None, None]
    assert [each.observations[0].seed for each in server.streams] == [1, 2]


@pytest.mark.parametrize(
    ("reason", "error"),
    [(DropReason.TOO_OLD, DeadlineExceeded), (DropReason.OVERLOADED, Overloaded), (DropReason.RESET, NotReady)],
)
def test_an_observation_that_is_dropped_is_an_error(
    server: Gateway, reason: DropReason, error: type[Exception]
) -> None:
    with session_at(server) as session:
        server.answer = lambda stream, asked: stream.send(
            ObservationDropped(asked.sequence, reason, epoch=stream.epoch)
        )
        with pytest.raises(error):
            session.plan(seen(), moment(0))


def test_an_error_of_one_observation_leaves_the_stream_open(server: Gateway) -> None:
    with session_at(server) as session:
        plain, failing = server.answer, StreamError(name="unsafe-chunk", message="beyond a limit")
        server.answer = lambda stream, asked: stream.send(replace(failing, sequence=asked.sequence, epoch=stream.epoch))
        with pytest.raises(UnsafeChunk):
            session.plan(seen(), moment(0))
        server.answer = plain
        assert session.plan(seen(), moment(1)).first_control_step == 1
    assert len(server.streams) == 1


def test_an_answer_that_never_comes_is_a_missed_deadline(server: Gateway) -> None:
    server.answer = lambda stream, asked: None
    with session_at(server, deadline_ms=50) as session, pytest.raises(DeadlineExceeded):
        session.plan(seen(), moment(0))


def test_a_stream_that_breaks_is_an_error_and_a_later_one_goes_on(server: Gateway) -> None:
    with session_at(server) as session:
        session.plan(seen(), moment(0))
        plain = server.answer
        server.answer = lambda stream, asked: stream.end()
        with pytest.raises(NotReady):
            session.plan(seen(), moment(1))
        server.answer = plain
        assert plan_patiently(session, seen(), moment(2)).first_control_step == 2
    assert [each.hello.resume_session_id for each in server.streams] == [None, "session-1"]


def test_a_service_that_stops_is_an_error(server: Gateway) -> None:
    server.answer = lambda stream, asked: stream.send(GoAway(1000, "draining"))
    with session_at(server) as session, pytest.raises(NotReady, match="the service stops: draining"):
        session.plan(seen(), moment(0))


def test_another_policy_than_the_one_that_was_checked_is_refused(server: Gateway) -> None:
    server.policy = replace(POLICY, digest="e" * 64)
    with session_at(server) as session, pytest.raises(ContractMismatch, match="policy_digest"):
        session.plan(seen(), moment(0))


def test_an_observation_is_sent_again_where_another_gateway_goes_on(server: Gateway) -> None:
    with gateway() as other:
        targets = [server.address, other.address]
        robot_id = next(f"arm-{i}" for i in range(99) if ranked(f"arm-{i}", targets)[0] == server.address)
        session = StreamSession(",".join(targets), robot_id, POLICY, Asking())
        session.begin(7)
        session.plan(seen(), moment(0))
        server.answer = lambda stream, asked: stream.end()
        other.epoch, other.committed = 1, 1
        assert session.plan(seen(), moment(3, 3)).first_control_step == 3
        session.close()
    assert other.stream.hello.resume_session_id == "session-1"
    [asked] = other.stream.observations
    assert (asked.control_step, asked.executed_steps, asked.seed) == (3, 3, 7)


@contextmanager
def two_gateways(**asking: Any) -> Iterator[tuple[StreamSession, Gateway, Gateway]]:
    """A session, the gateway that it prefers, and the other one."""
    with gateway() as one, gateway() as other:
        targets = [one.address, other.address]
        session = StreamSession(",".join(targets), "arm-0", POLICY, Asking(**asking))
        session.begin(7)
        yield session, *((one, other) if ranked("arm-0", targets)[0] == one.address else (other, one))
        session.close()


def test_a_client_that_stopped_between_two_plans_says_why() -> None:
    with two_gateways() as (session, first, second):
        session.plan(seen(), moment(0))
        first.policy = second.policy = replace(POLICY, digest="e" * 64)
        first.stream.end()
        client = session._client
        assert client is not None
        give_up = time.monotonic() + 30
        while client.stopped is None and time.monotonic() < give_up:
            time.sleep(0.01)
        errors: list[BaseException] = []

        def plan() -> None:
            try:
                session.plan(seen(), moment(3, 3))
            except WavserveError as error:
                errors.append(error)

        asking = threading.Thread(target=plan, daemon=True)
        asking.start()
        asking.join(10)
        assert [type(error) for error in errors] == [ContractMismatch]


def test_a_deadline_holds_across_gateways() -> None:
    """A plan of another gateway that comes after it is no answer any more."""
    with two_gateways(deadline_ms=200) as (session, first, second):

        def late(stream: Stream, asked: ControlObservation) -> None:
            time.sleep(0.3)
            stream.end()

        first.answer = late
        with pytest.raises(DeadlineExceeded, match="no answer within 200 ms"):
            session.plan(seen(), moment(0))
    assert [each.observations for each in second.streams] in ([], [[]])


def plan_patiently(session: StreamSession, shown: Seen, when: Moment) -> Any:
    """Asks until the client is connected again, at most for some seconds."""
    for _ in range(1000):
        try:
            return session.plan(shown, when)
        except NotReady:
            time.sleep(0.01)
    raise AssertionError("the client did not connect again")
