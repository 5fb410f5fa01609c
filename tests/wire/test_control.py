"""The messages of the control stream: they survive the wire, and the server refuses what it cannot know."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from tests.edge.fakes import RecordingPolicy, example_chunk_of, example_image, example_limits, example_spec
from wavserve.core.control import (
    Bye,
    ClientMessage,
    ControlObservation,
    DropReason,
    ExecutionReport,
    GoAway,
    Hello,
    HoldReason,
    ObservationDropped,
    Ping,
    Pong,
    ResetAck,
    ResetStream,
    RobotStatus,
    ServerMessage,
    StreamError,
    Welcome,
)
from wavserve.core.errors import InvalidAnswer, InvalidRequest, Overloaded, SequenceConflict, TooLarge, WavserveError
from wavserve.core.messages import Vector
from wavserve.core.rtc import RtcRequest
from wavserve.core.spec import CameraSpec
from wavserve.core.types import PlanRequest
from wavserve.edge.frontend import Frontend
from wavserve.pb import wavserve_pb2 as pb
from wavserve.wire import MAX_IMAGES, MAX_STATE_NUMBERS, MAX_TEXT_BYTES, bounds
from wavserve.wire.control import MAX_FAULTS, client_message, parse_client_message
from wavserve.wire.control_answers import (
    server_message,
    server_message_from,
    watch_interval_s,
    watch_update,
    watch_update_from,
)

HELLO = Hello(
    client_name="tests",
    client_version="1",
    robot_id="arm-1",
    embodiment="piper_dual",
    policy="example",
    policy_digest="d" * 64,
    state=Vector(("x0", "x1"), ("m", "rad"), "a" * 64),
    action=Vector(("x0",), ("m",)),
    control_hz=20.0,
    cameras=(CameraSpec("wrist", 128, 96, orientation="rotated_180"),),
    instruction="pick",
    resume_session_id="s1",
    want_iterations=True,
)
OBSERVATION = ControlObservation(
    images=(example_image(),),
    state=(0.5, -0.25),
    instruction="",
    sequence=2**63 - 1,
    epoch=3,
    control_step=24,
    executed_steps=8,
    sent_mono_ns=77,
    prev_chunk_id="c" * 16,
    prev_chunk_next_index=5,
    options={"mode": "off", "num_iterations": 0},
    seed=0,
    deadline_ms=200,
    imagine_chunks=1,
    rtc=RtcRequest(
        mode="rtc_guided",
        prefix_attention_schedule="EXP",
        max_guidance_weight=5.0,
        execution_horizon=0,
        inference_delay=2,
        prev_chunk_left_over=np.arange(6, dtype=np.float32).reshape(3, 2),
    ),
)
REPORT = ExecutionReport(
    chunk_id="c1",
    executed_from_step=3,
    executed_to_step=9,
    clamped_steps=1,
    hold_reason=HoldReason.LINK_LOST,
    faults=("left arm silent",),
    tracking_error=0.5,
    chunk_age_ms=120.0,
    seam_jump=0.25,
    starved_steps=2,
)
TO_SERVER: list[ClientMessage] = [HELLO, OBSERVATION, REPORT, Ping(7, 8), ResetStream(9), Bye("done")]


def over_the_wire(message: ClientMessage) -> ClientMessage:
    return parse_client_message(client_message(message).SerializeToString())


def chunk() -> Any:
    request = PlanRequest(instruction="x", sequence=4, images={}, state=np.zeros(8, np.float32), imagine_chunks=1)
    return replace(example_chunk_of(example_spec(), request), epoch=3)


def welcome() -> Welcome:
    return Welcome(
        session_id="s1",
        epoch=2,
        server_version="1.2",
        policy=Frontend(RecordingPolicy(), example_limits()).info(),
        dt_ns=50_000_000,
        max_in_flight=1,
        ping_interval_ms=100,
        resumed=True,
        next_sequence=5,
        resume_within_ms=10_000,
    )


@pytest.mark.parametrize("message", TO_SERVER, ids=lambda each: type(each).__name__)
def test_a_clients_message_arrives_as_it_was_sent(message: ClientMessage) -> None:
    arrived = over_the_wire(message)
    assert type(arrived) is type(message)
    np.testing.assert_equal(asdict(arrived), asdict(message))


def test_what_is_not_stated_is_none() -> None:
    plain = ControlObservation(images=(), state=(), instruction="", epoch=1)
    arrived = over_the_wire(plain)
    assert arrived == plain
    assert isinstance(arrived, ControlObservation)
    assert (arrived.rtc, arrived.seed, arrived.deadline_ms, arrived.session_id) == (None, None, None, None)
    assert over_the_wire(replace(HELLO, resume_session_id=None)) == replace(HELLO, resume_session_id=None)
    assert over_the_wire(ExecutionReport()) == ExecutionReport()


@pytest.mark.parametrize(
    "message",
    [
        welcome(),
        ObservationDropped(4, DropReason.SUPERSEDED, 5, 2),
        StreamError(name="sequence-conflict", message="m", sequence=0, epoch=1, field="sequence", fatal=True),
        StreamError(name="not-ready", message="m", retryable=True, retry_after_ms=5, error_id="urn:uuid:1"),
        Pong(1, 2, 3, 4),
        ResetAck(1, 2, 3),
        GoAway(1000, "the server stops"),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_servers_message_arrives_as_it_was_sent(message: ServerMessage) -> None:
    assert server_message_from(server_message(message)) == message


def test_a_chunk_arrives_as_it_was_sent() -> None:
    sent = chunk()
    np.testing.assert_equal(asdict(server_message_from(server_message(sent))), asdict(sent))  # type: ignore[arg-type]


def test_what_onlookers_see_arrives_as_it_was_sent() -> None:
    robot = RobotStatus(
        robot_id="arm-1",
        embodiment="piper_dual",
        client="tests 1",
        peer="127.0.0.1",
        epoch=2,
        connected_s=1.5,
        instruction="pick",
        observations=5,
        chunks=4,
        dropped=1,
        errors=0,
        plan_ms_p50=20.0,
        plan_ms_p95=30.0,
        last_chunk=chunk(),
        last_chunk_age_s=0.5,
        last_report=REPORT,
    )
    fresh = replace(robot, last_chunk=None, last_report=None)
    full, empty = watch_update_from(watch_update([robot, fresh]))
    np.testing.assert_equal(asdict(full), asdict(robot))
    assert empty == fresh


def test_a_client_ignores_what_a_newer_server_sends() -> None:
    newer = pb.ServerMessage.FromString(b"\xfa\x06\x02hi")  # field 111
    assert server_message_from(newer) is None
    with_more = pb.ServerMessage.FromString(b"\x2a\x07\x08\x01\xfa\x06\x02hi")  # a Pong with a field 111
    assert server_message_from(with_more) == Pong(1, 0, 0, 0)
    with pytest.raises(InvalidAnswer, match="got number 99"):
        server_message_from(pb.ServerMessage(dropped=pb.ObservationDropped(reason=99)))  # type: ignore[arg-type]


def test_an_error_of_the_stream_is_an_error_of_the_tree() -> None:
    bad = StreamError(name="sequence-conflict", message="m", field="sequence", expected="more than 3", actual="2")
    conflict = bad.error()
    assert isinstance(conflict, SequenceConflict)
    assert (conflict.field, conflict.expected, conflict.actual) == ("sequence", "more than 3", "2")
    busy = StreamError(name="overloaded", message="m", retry_after_ms=1500, error_id="urn:uuid:1").error()
    assert isinstance(busy, Overloaded)
    assert (busy.retry_after_s, busy.error_id) == (1.5, "urn:uuid:1")
    newer = StreamError(name="of-tomorrow", message="m", retryable=True).error()
    assert type(newer) is WavserveError
    assert newer.retryable


UNKNOWN = b"\xf8\x06\x01"  # field 111, varint 1


def with_unknown(change: str) -> bytes:
    """A message with an unknown field at one place."""
    message = client_message(HELLO if change.startswith("hello") else OBSERVATION)
    part: Any = message
    for name in change.split("."):
        part = part[0] if name == "0" else getattr(part, name)
    part.MergeFromString(UNKNOWN)
    return message.SerializeToString()


@pytest.mark.parametrize(
    ("place", "field"),
    [
        ("hello", "hello"),
        ("hello.state", "state"),
        ("hello.action", "action"),
        ("hello.cameras.0", "cameras"),
        ("observation", "observation"),
        ("observation.planner", "planner"),
        ("observation.images.0", "images.agentview"),
        ("observation.rtc", "rtc"),
        ("observation.rtc.prev_chunk_left_over", "rtc.prev_chunk_left_over"),
    ],
)
def test_an_unknown_field_is_refused_where_it_is(place: str, field: str) -> None:
    with pytest.raises(InvalidRequest, match="unknown field numbers 111") as caught:
        parse_client_message(with_unknown(place))
    assert caught.value.field == field


HELLO_BYTES = client_message(HELLO).SerializeToString()


@pytest.mark.parametrize(
    ("raw", "field", "actual"),
    [
        (b"", "message", "none"),
        (HELLO_BYTES + HELLO_BYTES, "message", "several"),
        (UNKNOWN, "request", "unknown field numbers 111"),
        (b"\x08\x01", "request", "unknown field numbers 1"),
        (b"\x0a\x05ab", "request", "4 bytes that do not parse"),
        (b"\x0a\x04\x12\x02\xff\xfe", "request", "6 bytes that do not parse"),
        (b"\x12\x00" * 100_000, "message", "several"),
        (b"\x12\x80\x80\x80\x01" + b"\x32\x00" * (1 << 20), "images", "more"),
    ],
)
def test_bytes_that_are_no_message_are_refused(raw: bytes, field: str, actual: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_client_message(raw)
    assert (caught.value.field, caught.value.actual) == (field, actual)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (pb.ClientMessage(bye=pb.Bye(reason="x" * MAX_TEXT_BYTES)), "bye"),
        (pb.ClientMessage(hello=pb.Hello(robot_id="x" * 10**6)), "hello"),
        (pb.ClientMessage(observation=pb.Observation(instruction="x" * 10**6)), "instruction"),
        (pb.ClientMessage(observation=pb.Observation(rtc=pb.RealTimeChunking(
            prev_chunk_left_over=pb.Tensor(data=bytes(10**6))))), "rtc"),
    ],
)  # fmt: skip
def test_only_a_pictures_data_may_be_long(message: pb.ClientMessage, field: str) -> None:
    with pytest.raises(TooLarge) as caught:
        parse_client_message(message.SerializeToString())
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (pb.ClientMessage(hello=pb.Hello(cameras=[pb.Camera()] * (MAX_IMAGES + 1))), "cameras"),
        (pb.ClientMessage(hello=pb.Hello(state=pb.Vector(names=[""] * (MAX_STATE_NUMBERS + 1)))), "state.names"),
        (pb.ClientMessage(hello=pb.Hello(action=pb.Vector(units=[""] * (MAX_STATE_NUMBERS + 1)))), "action.units"),
        (pb.ClientMessage(observation=pb.Observation(state=[0.0] * (MAX_STATE_NUMBERS + 1))), "state"),
        (pb.ClientMessage(observation=pb.Observation(images=[pb.Image()] * (MAX_IMAGES + 1))), "images"),
        (pb.ClientMessage(execution_report=pb.ExecutionReport(faults=[""] * (MAX_FAULTS + 1))), "faults"),
        (pb.ClientMessage(execution_report=pb.ExecutionReport(hold_reason=9)), "hold_reason"),  # type: ignore[arg-type]
    ],
)
def test_long_lists_and_unknown_reasons_are_refused(message: pb.ClientMessage, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_client_message(message.SerializeToString())
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("tensor", "field"),
    [
        (pb.Tensor(shape=[2], data=bytes(8)), "rtc.prev_chunk_left_over.shape"),
        (pb.Tensor(shape=[1, 1, 2], data=bytes(8)), "rtc.prev_chunk_left_over.shape"),
        (pb.Tensor(shape=[2, 2], data=bytes(8)), "rtc.prev_chunk_left_over.data"),
        (pb.Tensor(data=bytes(8)), "rtc.prev_chunk_left_over.shape"),
    ],
)
def test_a_left_over_is_a_matrix(tensor: pb.Tensor, field: str) -> None:
    message = pb.ClientMessage(observation=pb.Observation(rtc=pb.RealTimeChunking(prev_chunk_left_over=tensor)))
    with pytest.raises(InvalidRequest) as caught:
        parse_client_message(message.SerializeToString())
    assert caught.value.field == field


def test_an_unknown_schedule_is_for_the_policy_to_refuse() -> None:
    message = pb.ClientMessage(observation=pb.Observation(rtc=pb.RealTimeChunking(mode=9, prefix_attention_schedule=8)))  # type: ignore[arg-type]
    arrived = parse_client_message(message.SerializeToString())
    assert isinstance(arrived, ControlObservation)
    assert arrived.rtc is not None
    assert (arrived.rtc.mode, arrived.rtc.prefix_attention_schedule) == ("mode 9", "schedule 8")


def test_a_refused_observation_is_known_by_its_sequence() -> None:
    assert bounds.sequence_of(with_unknown("observation.rtc")) == OBSERVATION.sequence
    assert bounds.sequence_of(HELLO_BYTES) is None
    assert bounds.sequence_of(b"\x12\x05ab") is None
    of_70_bits = b"\x08" + b"\xff" * 9 + b"\x7f"
    assert bounds.sequence_of(b"\x12\x0b" + of_70_bits) == pb.Observation.FromString(of_70_bits).sequence


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (replace(HELLO, robot_id=5), "robot_id"),  # type: ignore[arg-type]
        (replace(HELLO, control_hz="20"), "control_hz"),  # type: ignore[arg-type]
        (replace(HELLO, protocol_version=-1), "protocol_version"),
        (replace(HELLO, cameras=(CameraSpec("wrist", -1, 96),)), "cameras.height"),
        (replace(HELLO, state=Vector((5,), ("m",))), "state"),  # type: ignore[arg-type]
        (replace(HELLO, resume_session_id=5), "resume_session_id"),  # type: ignore[arg-type]
        (replace(OBSERVATION, sequence=1.5), "sequence"),  # type: ignore[arg-type]
        (replace(OBSERVATION, epoch=-1), "epoch"),
        (replace(OBSERVATION, prev_chunk_id=None), "prev_chunk_id"),  # type: ignore[arg-type]
        (replace(OBSERVATION, state=(1.0, None)), "state[1]"),  # type: ignore[arg-type]
        (replace(OBSERVATION, rtc=RtcRequest(mode="guided")), "rtc.mode"),  # type: ignore[arg-type]
        (replace(OBSERVATION, rtc=RtcRequest(inference_delay=-1)), "rtc.inference_delay"),
        (replace(OBSERVATION, rtc=RtcRequest(prev_chunk_left_over=np.zeros(3))), "rtc.prev_chunk_left_over"),  # type: ignore[arg-type]
        (replace(REPORT, clamped_steps=1.5), "clamped_steps"),  # type: ignore[arg-type]
        (Ping(-1), "id"),
    ],
)  # fmt: skip
def test_a_client_refuses_what_the_contract_cannot_carry(message: ClientMessage, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        client_message(message)
    assert caught.value.field == field


def test_a_watch_request_is_read_strictly() -> None:
    assert watch_interval_s(b"") == 0
    assert watch_interval_s(pb.WatchRequest(interval_s=0.5).SerializeToString()) == 0.5
    with pytest.raises(InvalidRequest):
        watch_interval_s(UNKNOWN)
