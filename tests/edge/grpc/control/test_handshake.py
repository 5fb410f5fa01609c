"""The handshake fails closed: every assumption of the client that is wrong is named, and nothing moves."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import grpc
import pytest

from tests.edge.fakes import RecordingPolicy, example_limits
from tests.edge.grpc.control.links import Server, serving_rig
from tests.planning.rig import RigOptions, example_spec
from wavserve.core.control import Bye, ControlObservation, Hello, Ping, StreamError
from wavserve.core.messages import Vector
from wavserve.core.spec import CameraSpec
from wavserve.edge.frontend import Frontend
from wavserve.edge.grpc.control.robots import Robots
from wavserve.edge.grpc.control.service import ControlService
from wavserve.pb import wavserve_pb2 as pb
from wavserve.system.telemetry import Metrics

Change = Callable[[Hello], Hello]


def state(**changes: Any) -> Change:
    return lambda hello: replace(hello, state=replace(hello.state, **changes))


def action(**changes: Any) -> Change:
    return lambda hello: replace(hello, action=replace(hello.action, **changes))


def plain(**changes: Any) -> Change:
    return lambda hello: replace(hello, **changes)


def camera(**changes: Any) -> Change:
    """The second camera differs."""
    return lambda hello: replace(hello, cameras=(hello.cameras[0], replace(hello.cameras[1], **changes)))


MISMATCHES: list[tuple[Change, str, str, str]] = [
    (plain(protocol_version=2), "protocol_version", "1", "2"),
    (plain(protocol_version=0), "protocol_version", "1", "0"),
    (plain(policy=""), "policy", "'example'", "''"),
    (plain(policy="libero"), "policy", "'example'", "'libero'"),
    (plain(policy_digest=""), "policy_digest", "'fake'", "''"),
    (plain(policy_digest="e" * 64), "policy_digest", "'fake'", f"'{'e' * 62}"),
    (plain(embodiment="piper_dual"), "embodiment", "''", "'piper_dual'"),
    (plain(control_hz=0.0), "control_hz", "10.0", "0.0"),
    (plain(control_hz=30.0), "control_hz", "10.0", "30.0"),
    (plain(control_hz=math.nan), "control_hz", "10.0", "nan"),
    (state(names=()), "state.names", "3 entries", "0 entries"),
    (state(names=("x0", "x1")), "state.names", "3 entries", "2 entries"),
    (state(names=("x0", "x2", "x1")), "state.names[1]", "'x1'", "'x2'"),
    (state(units=("m", "m")), "state.units", "3 entries", "2 entries"),
    (state(units=("m", "m", "mm")), "state.units[2]", "'m'", "'mm'"),
    (state(statistics_digest="a" * 64), "state.statistics_digest", "", f"'{'a' * 62}"),
    (action(names=("x1", "x0")), "action.names[0]", "'x0'", "'x1'"),
    (action(units=("m", "rad")), "action.units[1]", "'m'", "'rad'"),
    (action(names=("x0",), units=("m",)), "action.names", "2 entries", "1 entries"),
    (action(statistics_digest="a" * 64), "action.statistics_digest", "", f"'{'a' * 62}"),
    (plain(cameras=()), "cameras", "top, wrist", "'none'"),
    (camera(name="side"), "cameras", "top, wrist", "'side, top'"),
    (camera(name="top"), "cameras", "top, wrist", "'top, top'"),
    (camera(orientation="rotated_180"), "cameras.wrist.orientation", "'as_captured'", "'rotated_180'"),
    (camera(orientation=""), "cameras.wrist.orientation", "'as_captured'", "''"),
    (camera(height=9), "cameras.wrist.height", "8", "9"),
    (camera(width=0), "cameras.wrist.width", "8", "0"),
]


@pytest.mark.parametrize(("change", "field", "expected", "actual"), MISMATCHES)
async def test_a_wrong_assumption_ends_the_stream(
    server: Server, change: Change, field: str, expected: str, actual: str
) -> None:
    link = server.link()
    await link.send(change(link.hello))
    error = await link.receive(StreamError)
    assert (error.name, error.field, error.fatal, error.sequence) == ("contract-mismatch", field, True, None)
    assert error.actual.startswith(actual)
    assert error.expected.startswith(expected)
    code, facts = await link.end()
    assert (code, facts["type"], facts["field"]) == ("FAILED_PRECONDITION", "contract-mismatch", field)
    assert (facts["expected"], facts["actual"], facts["error_id"]) == (error.expected, error.actual, error.error_id)
    assert len(server.robots) == 0
    await server.until(lambda: server.counted("control_streams_ended_total", outcome="contract-mismatch") == 1)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (plain(robot_id=""), "robot_id"),
        (plain(robot_id="x" * 129), "robot_id"),
        (plain(robot_id="arm\n1"), "robot_id"),
        (plain(client_name="x" * 129), "client_name"),
        (plain(client_version="\x1b[2J"), "client_version"),
        (plain(resume_session_id="x" * 129), "resume_session_id"),
        (plain(instruction=" "), "instruction"),
    ],
)
async def test_a_text_that_is_no_name_ends_the_stream(server: Server, change: Change, field: str) -> None:
    link = server.link()
    await link.send(change(link.hello))
    error = await link.receive(StreamError)
    assert (error.name, error.field, error.fatal) == ("invalid-request", field, True)
    assert (await link.end())[0] == "INVALID_ARGUMENT"


async def test_cameras_may_come_in_any_order_and_other_sizes_where_they_are_resized() -> None:
    cameras = (CameraSpec("top", 8, 8, "area"), CameraSpec("wrist", 8, 8, "bilinear"))
    async with serving_rig(RigOptions(spec=replace(example_spec(), cameras=cameras))) as (server, _):
        link = server.link()
        sent = tuple(replace(each, height=480, width=640, resize="exact") for each in reversed(cameras))
        await link.open(cameras=sent)


async def test_statistics_count_when_they_are_stated(server: Server) -> None:
    link = server.link()
    assert link.hello.state.statistics_digest
    unstated = Vector(link.hello.state.names, link.hello.state.units)
    await link.open(state=unstated)
    await server.link("other").open()


@pytest.mark.parametrize(
    "first",
    [ControlObservation(images=(), state=(), instruction="x", epoch=1), Ping(1), Bye(), pb.ClientMessage()],
    ids=["observation", "ping", "bye", "nothing"],
)
async def test_the_first_message_is_hello(server: Server, first: Any) -> None:
    link = server.link()
    await link.send(first)
    error = await link.receive(StreamError)
    assert (error.name, error.field, error.fatal) == ("invalid-request", "message", True)
    assert (await link.end())[0] == "INVALID_ARGUMENT"


async def test_a_stream_without_a_message_is_refused(server: Server) -> None:
    link = server.link()
    await link.call.done_writing()
    assert (await link.receive(StreamError)).field == "message"


async def test_a_second_hello_ends_the_stream(server: Server) -> None:
    link = server.link()
    await link.open()
    await link.send(link.hello)
    error = await link.receive(StreamError)
    assert (error.field, error.actual, error.fatal) == ("message", "another hello", True)
    assert (await link.end())[0] == "INVALID_ARGUMENT"
    await server.link().open()


class Silent:
    """The context of a call whose client sends nothing."""

    def __init__(self) -> None:
        self.written: list[pb.ServerMessage] = []
        self.code: grpc.StatusCode | None = None

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    async def read(self) -> bytes:
        await asyncio.Event().wait()
        return b""

    async def write(self, raw: bytes) -> None:
        self.written.append(pb.ServerMessage.FromString(raw))

    async def abort(self, code: grpc.StatusCode, *_details: object, **_metadata: object) -> None:
        self.code = code


async def test_a_stream_that_says_nothing_is_ended() -> None:
    frontend, context = Frontend(RecordingPolicy(), example_limits()), Silent()
    service = ControlService(frontend, Robots(), Metrics().control, hello_s=0.05)
    await service.control(None, context)  # type: ignore[arg-type]  # all that is asked of them
    [message] = context.written
    assert (message.error.name, message.error.fatal) == ("deadline-exceeded", True)
    assert context.code is grpc.StatusCode.DEADLINE_EXCEEDED


class Gone(Silent):
    """The context of a call that has ended, before gRPC cancels its method."""

    async def write(self, raw: bytes) -> None:
        raise grpc.aio.UsageError("RPC already finished.")


async def test_a_client_that_is_gone_when_it_is_answered_is_no_internal_error(caplog: pytest.LogCaptureFixture) -> None:
    frontend, context, metrics = Frontend(RecordingPolicy(), example_limits()), Gone(), Metrics()
    service = ControlService(frontend, Robots(), metrics.control, hello_s=0.05)
    await service.control(None, context)  # type: ignore[arg-type]  # all that is asked of them
    await service.watch(b"", context)  # type: ignore[arg-type]
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_nobody_is_welcomed_while_the_service_is_not_ready() -> None:
    async with serving_rig(RigOptions(ready=False)) as (server, _):
        link = server.link()
        await link.send(link.hello)
        error = await link.receive(StreamError)
        assert (error.name, error.retryable, error.fatal) == ("not-ready", True, True)
        code, facts = await link.end()
        assert (code, facts["retryable"]) == ("UNAVAILABLE", "true")
