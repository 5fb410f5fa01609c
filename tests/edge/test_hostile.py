"""Hostile bodies: text that UTF-8 cannot encode, huge numbers, lists that are far too long, truncated images."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from tests.edge.bodies import GOOD, with_image
from tests.edge.fakes import example_image, example_observation
from tests.edge.robots import GrpcRobot, Robot, get_in_process, message_of, reply_of
from tests.edge.served import Served
from wavserve.core.errors import InvalidRequest
from wavserve.edge.http.body import parse_plan
from wavserve.edge.http.gate import HttpGate
from wavserve.edge.http.headers import media_type
from wavserve.edge.report import MAX_FACT_CHARS, report, safe_text
from wavserve.pb import wavserve_pb2 as pb
from wavserve.system.telemetry import Metrics
from wavserve.wire import MAX_IMAGES, MAX_STATE_NUMBERS
from wavserve.wire.requests import parse_plan_request

JSON = "application/json"
LONE = "\ud800"


def read(content_type: str, body: bytes) -> None:
    parse_plan(media_type("content-type", content_type), body)


def ask(client: httpx.Client, body: object, content_type: str = JSON) -> dict[str, Any]:
    """Sends a bad body and returns the problem's facts. The status must be a 4xx."""
    content = body if isinstance(body, bytes) else json.dumps(body)
    answer = reply_of(client.post("/v1/plan", content=content, headers={"content-type": content_type}))
    assert isinstance(answer.code, int)
    assert 400 <= answer.code < 500, answer
    return answer.content


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (with_image(camera=LONE), "images.\\ud800"),
        (with_image(encoding=LONE), "images.agentview.encoding"),
        (with_image(data=LONE), "images.agentview.data"),
        (with_image(**{LONE: 1}), "images[0]"),
        (GOOD | {LONE: 1}, "body"),
        (GOOD | {"planner": {LONE: 1}}, "planner.\\ud800"),
        (GOOD | {"planner": {"mode": LONE}}, "planner.mode"),
        (GOOD | {"policy": LONE}, "policy"),
        (GOOD | {"session_id": LONE}, "session_id"),
        (GOOD | {"state": [LONE]}, "state[0]"),
        (b'{"\\ud800": 1, "\\ud800": 2}', "\\ud800"),
    ],
)
def test_a_lone_surrogate_is_a_bad_request(body: Any, field: str, client: httpx.Client, served: Served) -> None:
    assert ask(client, body)["field"] == field
    assert served.policy.requests == []


def test_an_option_of_four_hundred_digits_is_refused(client: httpx.Client) -> None:
    assert ask(client, GOOD | {"planner": {"smoothing": 10**400}})["field"] == "planner.smoothing"


def test_a_boundary_that_is_too_long_is_refused(client: httpx.Client) -> None:
    problem = ask(client, b"--x--", f"multipart/form-data; boundary={'x' * 257}")
    assert (problem["field"], problem["actual"]) == ("content-type", "257 characters")


def test_the_texts_of_a_problem_are_short(client: httpx.Client) -> None:
    problem = ask(client, with_image(encoding="e" * 10_000, camera="c" * 10_000))
    texts = [problem[name] for name in ("field", "expected", "actual")]
    assert all(0 < len(text) <= MAX_FACT_CHARS for text in texts)
    assert len(problem["detail"]) < 1_000


@pytest.mark.parametrize("text", ["short", "x" * 300, "x" * 301, LONE * 300, "é" * 400])
def test_a_safe_text_is_utf8_and_no_longer_than_allowed(text: str) -> None:
    safe = safe_text(text)
    safe.encode()
    assert len(safe) <= MAX_FACT_CHARS
    assert (safe == text) == (len(text) <= MAX_FACT_CHARS and LONE not in text)


@pytest.mark.parametrize(
    ("changes", "field", "expected", "actual"),
    [
        ({"state": ["x"] * 900}, "state[0]", "a valid number", "'x'"),
        ({"state": ["x"] * 500_000}, "body", "at most 1000 keys and texts", "more"),
        ({"state": [0.0] * 5_000}, "state", f"at most {MAX_STATE_NUMBERS} items", "5000 items"),
        ({"images": GOOD["images"][:1] * 17}, "images", f"at most {MAX_IMAGES} items", "17 items"),
        ({"images": [1] * 9_000}, "images[0]", "an object", "1"),
        ({"images": [1] * 10_000}, "body", "at most 10000 list items and object members", "10022"),
        ({"images": {}}, "images", "a valid list", "{}"),
        ({f"key{i}": 1 for i in range(100)}, "body", "at most 64 keys in an object", f"{100 + len(GOOD)} keys"),
    ],
)
def test_a_list_that_is_far_too_long_is_refused(
    changes: dict[str, object], field: str, expected: str, actual: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(JSON, json.dumps(GOOD | changes).encode())
    assert (caught.value.field, caught.value.expected, caught.value.actual) == (field, expected, actual)


def test_a_repeated_key_among_many_is_named() -> None:
    """Keys are counted in one pass. Searching for each key among the others took seconds for this many."""
    keys = [f'"{number}": 1' for number in range(900)]
    with pytest.raises(InvalidRequest, match="899: expected each key once in an object, got 2 times"):
        read(JSON, ("{" + ", ".join([*keys, keys[-1]]) + "}").encode())


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (pb.PlanRequest(images=[pb.Image()] * 100_000), "images"),
        (pb.PlanRequest(state=[0.0] * 5_000), "state"),
    ],
)
def test_grpc_counts_items_before_it_reads_them(message: pb.PlanRequest, field: str) -> None:
    with pytest.raises(InvalidRequest, match=f"{field}: expected at most"):
        parse_plan_request(message.SerializeToString())


def test_many_unknown_fields_are_reported_briefly() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_plan_request(bytes([0xF8, 0x06, 0x01]) * 9_000)
    assert caught.value.actual == "unknown field numbers " + ", ".join(["111"] * 8)


def test_too_many_parts_are_refused() -> None:
    body = b"".join(b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' for _ in range(100)) + b"--x--\r\n"
    with pytest.raises(InvalidRequest, match=f"at most {MAX_IMAGES + 1} parts"):
        read("multipart/form-data; boundary=x", body)


def test_a_png_without_its_end_is_refused(robot: Robot, served: Served) -> None:
    whole = example_image("wrist", "png")
    truncated = type(whole)(whole.camera, whole.encoding, whole.data[:-12])
    answer = robot.plan(example_observation(images=(example_image("agentview"), truncated)))
    assert (answer.content["field"], answer.content["expected"]) == ("images.wrist.data", "a complete PNG")
    assert answer.content["actual"] == "broken data: no IEND chunk at the end"
    assert served.policy.requests == []


def test_a_plan_the_service_cancelled_is_not_ready(robot: Robot, served: Served) -> None:
    served.policy.error = asyncio.CancelledError()
    answer = robot.plan(example_observation())
    assert (answer.code, answer.name) == ("UNAVAILABLE" if robot.kind == "grpc" else 503, "not-ready")


async def test_an_error_while_reporting_an_error_is_a_problem(caplog: pytest.LogCaptureFixture) -> None:
    error = InvalidRequest("x", "y", "z")
    error.field = 5  # type: ignore[assignment]  # makes `report` fail

    async def failing(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise error

    response = await get_in_process(HttpGate(failing, 1000, Metrics()), "/v1/plan")
    answer = reply_of(response)
    assert (answer.code, answer.name) == (500, "internal")
    assert answer.content["instance"] in caplog.text
    assert "TypeError" in caplog.text
    assert "TypeError" not in response.text


def test_a_refusal_is_logged_in_utf8(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        report(InvalidRequest(LONE, LONE, LONE), "http")
    caplog.text.encode()
    assert "\\ud800" in caplog.text


def test_grpc_refuses_too_many_images(grpc_robot: GrpcRobot) -> None:
    message = message_of(example_observation(images=()))
    message.MergeFrom(pb.PlanRequest(images=[pb.Image()] * 50_000))
    answer = grpc_robot.call(grpc_robot.stub.Plan, message)
    assert (answer.code, answer.content["actual"]) == ("INVALID_ARGUMENT", "more")
