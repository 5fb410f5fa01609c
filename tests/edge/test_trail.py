"""What requests leave behind at the edges: a span that joins the robot's trace, and a line of JSON without secrets."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import pytest
from opentelemetry.trace import StatusCode

from tests.edge.fakes import INSTRUCTION, RecordingPolicy, example_limits, example_observation
from tests.edge.grpc.control.links import LIMITS, Gate, Link, Server, example_message, serving_policy, serving_rig
from tests.edge.robots import Address, serving
from tests.edge.websocket.clients import CONFIG, connected, libero
from tests.edge.websocket.policies import WholeChunks
from tests.spans import Spans
from wavserve.clients.plan_client import PlanClient
from wavserve.core.control import ControlObservation, DropReason, ObservationDropped, Ping, Pong, StreamError
from wavserve.core.errors import BackendError, DeadlineExceeded, MissedDeadline, Overloaded, WavserveError
from wavserve.core.messages import ActionChunk
from wavserve.core.tracing import TraceContext, Tracer
from wavserve.edge.trail import Trail
from wavserve.pb import wavserve_pb2 as pb
from wavserve.system.telemetry import Metrics

ROBOT = TraceContext("ab" * 16, "cd" * 8, True)


@dataclass
class Left:
    """What requests have left."""

    spans: Spans = field(default_factory=Spans)
    lines: list[Mapping[str, Any]] = field(default_factory=list)

    def trail(self, **asked: bool) -> Trail:
        return Trail(self.spans.tracer(), self.lines.append, **asked)

    def text(self) -> str:
        """Everything that was left."""
        return json.dumps([dict(line) for line in self.lines]) + "".join(span.to_json() for span in self.spans.ended)


@dataclass(frozen=True)
class Traced:
    policy: RecordingPolicy
    address: Address
    left: Left


@pytest.fixture
def traced() -> Iterator[Traced]:
    policy, left = RecordingPolicy(), Left()
    with serving(policy, example_limits(), Metrics(), trail=left.trail()) as address:
        yield Traced(policy, address, left)


def escaped(raw: bytes) -> str:
    """As Python prints bytes, in JSON."""
    return json.dumps(repr(raw)[2:-1])[1:-1]


def parent_of(span: Any) -> tuple[int, int]:
    return span.parent.trace_id, span.parent.span_id


@pytest.mark.parametrize("edge", ["http", "grpc"])
def test_a_plan_joins_its_callers_trace(edge: str, traced: Traced) -> None:
    client_side = Spans()
    with PlanClient(getattr(traced.address, edge), tracer=client_side.tracer("client")) as client:
        chunk = client.plan(example_observation(sequence=5, deadline_ms=60_000))
    robot, gateway = client_side.one("robot.plan"), traced.left.spans.one("gateway.plan")
    assert parent_of(gateway) == (robot.context.trace_id, robot.context.span_id)
    assert gateway.attributes["wavserve.chunk"] == robot.attributes["wavserve.chunk"] == chunk.chunk_id
    assert {"gateway.plan > parse", "gateway.plan > decode images"} <= traced.left.spans.paths()
    [line] = traced.left.lines
    assert (line["trace_id"], line["edge"]) == (f"{robot.context.trace_id:032x}", edge)


def test_a_robots_decision_not_to_record_reaches_the_gateway(traced: Traced) -> None:
    class Unsampled(Tracer):
        def begin(self, name: str, *args: Any, **facts: Any) -> Any:
            return super().begin(name, TraceContext("ab" * 16, "cd" * 8, False))

    with PlanClient(traced.address.grpc, tracer=Unsampled()) as client:
        client.plan(example_observation())
    assert traced.left.spans.ended == []
    assert traced.left.lines[0]["trace_id"] == "ab" * 16, "the line still tells which trace it was"


def test_a_websockets_observations_join_the_trace_of_its_request() -> None:
    left = Left()
    with (
        serving(WholeChunks(), example_limits(), Metrics(), compat=CONFIG, trail=left.trail()) as address,
        connected(address.http, headers={"traceparent": ROBOT.traceparent}) as client,
    ):
        client.infer(libero())
    assert parent_of(left.spans.one("gateway.plan")) == (int(ROBOT.trace_id, 16), int(ROBOT.span_id, 16))
    assert left.lines[0]["edge"] == "websocket"


async def test_each_observation_of_a_stream_joins_a_trace_of_its_own() -> None:
    left = Left()
    async with serving_policy(RecordingPolicy(), Gate(), example_limits(), left.trail()) as server:
        link = server.link("arm-7")
        await link.open()
        for sequence, context in enumerate((ROBOT, TraceContext("12" * 16, "34" * 8, True))):
            plain = example_observation()
            sent = link_observation(link, sequence, plain, context.traceparent)
            await link.send(sent)
            await link.receive(ActionChunk)
    parents = [parent_of(span) for span in left.spans.named("gateway.plan")]
    assert parents == [(int("ab" * 16, 16), int("cd" * 8, 16)), (int("12" * 16, 16), int("34" * 8, 16))]
    assert [(line["robot"], line["sequence"]) for line in left.lines] == [("arm-7", 0), ("arm-7", 1)]


@dataclass
class Streamed:
    """A robot on a stream, what it left, and the failures that onlookers see."""

    server: Server
    link: Link
    left: Left
    failures: list[tuple[type[Exception], str]]


@asynccontextmanager
async def streamed() -> AsyncIterator[Streamed]:
    left, failures = Left(), []
    trail = replace(left.trail(), on_failed=lambda error, sender: failures.append((type(error), sender)))
    async with serving_rig(trail=trail) as (server, _):
        link = server.link("arm-7")
        await link.open()
        yield Streamed(server, link, left, failures)


def told(line: Mapping[str, Any]) -> tuple[Any, ...]:
    return line["outcome"], line["error"], line["robot"], line["sequence"]


async def test_an_observation_whose_deadline_passes_while_it_waits_leaves_a_refusal_and_a_line() -> None:
    async with streamed() as robot:
        robot.server.gate.close()
        await robot.link.send(robot.link.observation(0))
        await asyncio.wait_for(robot.server.gate.began.wait(), 15)
        await robot.link.send(robot.link.observation(1, deadline_ms=1, traceparent=ROBOT.traceparent), Ping(1))
        await robot.link.receive(Pong)
        await asyncio.sleep(0.01)
        robot.server.gate.open()
        await robot.link.receive(ActionChunk)
        assert (await robot.link.receive(ObservationDropped)).reason is DropReason.TOO_OLD
    _, line = robot.left.lines
    assert told(line) == ("refused", "deadline-exceeded", "arm-7", 1)
    assert robot.link.welcome is not None
    assert (line["session"], line["deadline_ms"]) == (robot.link.welcome.session_id, 1.0)
    assert line["margin_ms"] < 0
    assert robot.failures == [(DeadlineExceeded, "arm-7")]
    late = robot.left.spans.named("gateway.plan")[1]
    assert (parent_of(late)[0], late.attributes["error.type"]) == (int(ROBOT.trace_id, 16), "deadline-exceeded")
    assert robot.server.counted("refused_plans_total", reason="deadline") == 1


async def test_an_observation_that_is_refused_leaves_a_line_whether_it_can_be_read_or_not() -> None:
    async with streamed() as robot:
        large = pb.Image(data=bytes(LIMITS.max_body_bytes))
        unread = pb.ClientMessage(observation=pb.Observation(sequence=1, epoch=1, images=[large]))
        await robot.link.send(robot.link.observation(0, state=(0.0,)), unread)
        names = [(await robot.link.receive(StreamError)).name for _ in range(2)]
    assert [told(line) for line in robot.left.lines] == [
        ("failed", names[0], "arm-7", 0),
        ("failed", names[1], "arm-7", None),
    ]
    assert robot.left.lines[0]["session"]
    assert [sender for _, sender in robot.failures] == ["arm-7", "arm-7"]


async def test_a_stream_without_a_place_for_a_plan_leaves_the_sequence_number() -> None:
    left, policy = Left(), RecordingPolicy(reserve_error=Overloaded("no place"))
    async with serving_policy(policy, Gate(), example_limits(), left.trail()) as server:
        link = server.link("arm-7")
        await link.open()
        await link.send(example_message(4))
        await link.receive(ObservationDropped)
    assert [told(line) for line in left.lines] == [("refused", "overloaded", "arm-7", 4)]


async def test_a_malformed_context_on_a_stream_costs_no_plan() -> None:
    left = Left()
    async with serving_policy(RecordingPolicy(), Gate(), example_limits(), left.trail()) as server:
        link = server.link()
        await link.open()
        await link.send(link_observation(link, 0, example_observation(), "no context"))
        await link.receive(ActionChunk)
    assert left.spans.one("gateway.plan").parent is None


def link_observation(link: Any, sequence: int, plain: Any, traceparent: str) -> Any:
    return ControlObservation(
        images=plain.images,
        state=plain.state,
        instruction="",
        sequence=sequence,
        epoch=link.welcome.epoch,
        traceparent=traceparent,
    )


def test_a_line_has_what_is_known_of_an_answered_plan(traced: Traced) -> None:
    with PlanClient(traced.address.grpc) as client:
        chunk = client.plan(example_observation(session_id="s" * 20, sequence=3, deadline_ms=60_000))
    [line] = traced.left.lines
    expected = {
        "event": "plan",
        "outcome": "answered",
        "error": None,
        "edge": "grpc",
        "sender": "127.0.0.1",
        "robot": None,
        "session": "s" * 20,
        "sequence": 3,
        "chunk": chunk.chunk_id,
        "policy_digest": "d" * 64,
        "iterations": 2,
        "iterations_asked": 2,
        "video_samples": 6,
        "value_samples": 4,
        "deadline": "met_degraded",
        "stage_ms": {"imagine": 500.0, "score": 250.0},
    }
    assert {name: line[name] for name in expected} == expected
    assert 0 < line["margin_ms"] < line["deadline_ms"] <= 60_000
    assert line["ms"] > 0
    json.dumps(dict(line))


MISSED = MissedDeadline(-12.5, 1, 6, 4)


@pytest.mark.parametrize(
    ("error", "outcome", "name"),
    [
        (DeadlineExceeded("late", MISSED), "missed", "deadline-exceeded"),
        (DeadlineExceeded("would be late"), "refused", "deadline-exceeded"),
        (Overloaded("too many"), "refused", "overloaded"),
        (BackendError("odd"), "failed", "backend-error"),
        (RuntimeError("a bug"), "failed", "internal"),
    ],
)
def test_a_line_and_a_span_name_a_failure(error: Exception, outcome: str, name: str, traced: Traced) -> None:
    traced.policy.error = error
    with PlanClient(traced.address.grpc) as client, pytest.raises(WavserveError):
        client.plan(example_observation(deadline_ms=60_000))
    [line] = traced.left.lines
    span = traced.left.spans.one("gateway.plan")
    assert (line["outcome"], line["error"]) == (outcome, name)
    assert span.attributes["error.type"] == ("RuntimeError" if name == "internal" else name)
    assert span.status.status_code is StatusCode.ERROR
    assert (span.status.description, span.events) == (None, ()), "a message may quote what a robot sent"
    if outcome == "missed":
        spent = (line["margin_ms"], line["iterations"], line["video_samples"], line["value_samples"])
        assert spent == (-12.5, 1, 6, 4)


def test_a_request_that_is_refused_by_its_headers_leaves_a_line(traced: Traced) -> None:
    traced.policy.reserve_error = Overloaded("no place")
    answer = httpx.post(f"{traced.address.http}/v1/plan", content=b"{}", headers={"traceparent": ROBOT.traceparent})
    assert answer.status_code == 429
    [line] = traced.left.lines
    assert (line["outcome"], line["error"], line["session"], line["sequence"]) == ("refused", "overloaded", None, None)
    assert line["trace_id"] == ROBOT.trace_id


def test_neither_holds_an_instruction_or_a_picture_unless_instructions_are_asked_for() -> None:
    observation = example_observation()
    pieces = [image.data[9:39] for image in observation.images]  # base64 makes the same of it wherever the rest is
    traces = [form(piece) for piece in pieces for form in (bytes.hex, lambda raw: b64encode(raw).decode(), escaped)]
    for asked in (False, True):
        left = Left()
        trail = left.trail(spans_tell_instructions=asked, lines_tell_instructions=asked)
        with (
            serving(RecordingPolicy(), example_limits(), Metrics(), trail=trail) as address,
            PlanClient(address.http) as client,
        ):
            client.plan(observation)
        assert left.text().count(INSTRUCTION) == (2 if asked else 0)
        assert not any(trace in left.text() for trace in traces)
        told = [
            *left.lines[0].values(),
            *(each for span in left.spans.ended for each in (span.attributes or {}).values()),
        ]
        assert max(len(json.dumps(value, default=str)) for value in told) < 300


async def test_a_line_of_a_stream_tells_the_failure_that_the_robot_got() -> None:
    left = Left()
    policy = RecordingPolicy(error=BackendError("odd"))
    async with serving_policy(policy, Gate(), example_limits(), left.trail()) as server:
        link = server.link()
        await link.open()
        await link.send(link_observation(link, 0, example_observation(), ""))
        told = await link.receive(StreamError)
    assert (left.lines[0]["error"], left.lines[0]["outcome"]) == (told.name, "failed")
