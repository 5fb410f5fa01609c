"""What only HTTP has: content types, malformed bodies, its own statuses, documents, and disconnects."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tests.edge.fakes import RecordingPolicy, example_image, example_limits, example_observation
from tests.edge.robots import JsonRobot, body_of, reply_of
from tests.edge.served import Served
from wavserve.core.errors import BackendError, DeadlineExceeded, Missed, Overloaded
from wavserve.edge.http.api import create_http_app
from wavserve.system.telemetry import Metrics

JSON = {"content-type": "application/json"}
GOOD = body_of(example_observation())


@pytest.fixture
def client(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.address.http, timeout=30) as client:
        yield client


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in GOOD.items() if key != name}


def with_image(**changes: object) -> dict[str, Any]:
    return GOOD | {"images": [GOOD["images"][0] | changes, GOOD["images"][1]]}


@pytest.mark.parametrize(
    ("body", "field", "expected", "actual"),
    [
        (b"", "body", "JSON in UTF-8", "0 bytes that do not parse"),
        (b"{", "body", "JSON in UTF-8", "1 bytes that do not parse"),
        (b"[" * 100_000, "body", "JSON in UTF-8", "100000 bytes that do not parse"),
        (b'{"a": "\xff"}', "body", "JSON in UTF-8", "10 bytes that do not parse"),
        (b"[]", "body", "an object", "[]"),
        (b'{"seed": 1, "seed": 2}', "seed", "each key once in an object", "2 times"),
        (without("state"), "state", "a value", "nothing"),
        (without("images"), "images", "a value", "nothing"),
        (GOOD | {"colour": 1}, "colour", "only fields of the contract", "an unknown field"),
        (GOOD | {"state": "0,0"}, "state", "a valid list", "'0,0'"),
        (GOOD | {"state": [0.0, "1"]}, "state[1]", "a valid number", "'1'"),
        (GOOD | {"state": [True] * 8}, "state[0]", "a valid number", "True"),
        (GOOD | {"state": [10**400] * 8}, "state[0]", "", ""),
        (GOOD | {"state": [1e39] * 8}, "state[0]", "a finite float32", "1e+39"),
        (GOOD | {"sequence": 1.0}, "sequence", "a valid integer", "1.0"),
        (GOOD | {"sequence": -1}, "sequence", f"0 to {2**63 - 1}", "-1"),
        (GOOD | {"deadline_ms": 10**30}, "deadline_ms", f"1 to {2**32 - 1}", str(10**30)),
        (GOOD | {"instruction": None}, "instruction", "a valid string", "None"),
        (GOOD | {"instruction": "\ud800"}, "instruction", "", ""),
        (GOOD | {"planner": {"num_iterations": "2"}}, "planner.num_iterations", "an integer", "'2'"),
        (GOOD | {"planner": {"num_iterations": True}}, "planner.num_iterations", "an integer", "True"),
        (GOOD | {"planner": {"temperature": 2}}, "planner.temperature", "one of mode, num_iterations", "an unknown"),
        (with_image(data="AAA"), "images.agentview.data", "base64", "3 characters: Incorrect padding"),
        (with_image(data="A A A A "), "images.agentview.data", "base64", "8 characters: "),
        (with_image(data="é"), "images.agentview.data", "base64", "1 characters: "),
        (with_image(height=None), "images[0].height", "a valid integer", "None"),
        (with_image(depth=1), "images[0].depth", "only fields of the contract", "an unknown field"),
        (with_image(captured_mono_ns=2**63), "images.agentview.captured_mono_ns", "0 to", str(2**63)),
    ],
)
def test_a_malformed_body_names_its_field(
    body: Any, field: str, expected: str, actual: str, client: httpx.Client, served: Served
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body)
    answer = reply_of(client.post("/v1/plan", content=content, headers=JSON))
    assert (answer.code, answer.name, answer.content["field"]) == (400, "invalid-request", field), answer.content
    assert answer.content["expected"].startswith(expected)
    assert answer.content["actual"].startswith(actual)
    assert served.policy.requests == []


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_another_content_type_is_415(content_type: str, client: httpx.Client) -> None:
    answer = reply_of(client.post("/v1/plan", content=json.dumps(GOOD), headers={"content-type": content_type}))
    assert (answer.code, answer.name) == (415, "unsupported-media")
    assert answer.content["expected"] == "application/json or multipart/form-data"
    assert answer.content["actual"] == (repr(content_type) if content_type else "none")


def test_json_may_state_its_charset(client: httpx.Client) -> None:
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    assert reply_of(client.post("/v1/plan", content=json.dumps(GOOD), headers=headers)).code == 200


REQUEST = ("request", (None, json.dumps(without("images")), "application/json"))
AGENTVIEW = ("agentview", ("a.png", example_image("agentview", "png").data, "image/png"))
WRIST = ("wrist", ("w.jpg", example_image("wrist", "jpeg").data, "image/jpeg"))


def facts(*images: dict[str, Any]) -> tuple[str, Any]:
    return ("request", (None, json.dumps(without("images") | {"images": list(images)}), "application/json"))


def part(name: str, data: bytes, content_type: str | None, filename: str | None = "f") -> tuple[str, Any]:
    return (name, (filename, data, content_type) if content_type else (filename, data))


@pytest.mark.parametrize(
    ("files", "status", "field", "expected", "actual"),
    [
        ([AGENTVIEW, WRIST], 400, "request", "one part named request", "0 such parts"),
        ([REQUEST, REQUEST, AGENTVIEW, WRIST], 400, "request", "one part named request", "2 such parts"),
        ([("request", (None, "{", "application/json")), AGENTVIEW], 400, "request", "JSON in UTF-8", "1 bytes"),
        ([("request", (None, "{}", "text/xml")), AGENTVIEW], 415, "request", "application/json", "text/xml"),
        ([REQUEST, AGENTVIEW], 400, "images.wrist", "one image of each camera", "no image"),
        ([REQUEST, AGENTVIEW, WRIST, WRIST], 400, "images.wrist", "one image", "2 images"),
        ([REQUEST, AGENTVIEW, part("wrist", b"x", "image/gif")], 415, "images.wrist", "a part of type", "image/gif"),
        ([REQUEST, AGENTVIEW, part("wrist", b"x", None, "f")], 400, "images.wrist.encoding", "an encoding", "none"),
        ([REQUEST, AGENTVIEW, ("wrist", (None, b"x"))], 415, "images.wrist", "a part of type", "no content type"),
        ([facts({"camera": "top"}), AGENTVIEW, WRIST], 400, "images.top", "a part named top", "no such part"),
        (
            [facts({"camera": "wrist"}, {"camera": "wrist"}), AGENTVIEW, WRIST],
            400, "images", "each camera once", "2 entries for 1 cameras",
        ),
        (
            [facts({"camera": "wrist", "encoding": "png"}), AGENTVIEW, WRIST],
            400, "images.wrist.encoding", "jpeg, as the part's content type says", "png",
        ),
        (
            [facts({"camera": "wrist", "data": "AAAA"}), AGENTVIEW, WRIST],
            400, "images[0].data", "only fields", "an unknown field",
        ),
    ],
)  # fmt: skip
def test_malformed_parts_are_named(
    files: list[Any], status: int, field: str, expected: str, actual: str, client: httpx.Client
) -> None:
    answer = reply_of(client.post("/v1/plan", files=files))
    assert (answer.code, answer.content["field"]) == (status, field), answer.content
    assert answer.content["expected"].startswith(expected)
    assert answer.content["actual"].startswith(actual)


def test_a_part_needs_neither_facts_nor_a_file_name(client: httpx.Client, served: Served) -> None:
    wrist = ("wrist", (None, WRIST[1][1], "image/jpeg"))
    assert reply_of(client.post("/v1/plan", files=[REQUEST, AGENTVIEW, wrist])).code == 200
    (request,) = served.policy.requests
    assert set(request.images) == {"agentview", "wrist"}


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        ("multipart/form-data", b"--x--", "a boundary parameter"),
        ("multipart/form-data; boundary=x", b"nonsense", "multipart/form-data"),
        ("multipart/form-data; boundary=x", b"", "multipart/form-data with a closing boundary"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="request"\r\n\r\n{}',
            "multipart/form-data with a closing boundary",
        ),
    ],
)
def test_a_broken_multipart_body_is_refused(
    content_type: str, body: bytes, expected: str, client: httpx.Client
) -> None:
    answer = reply_of(client.post("/v1/plan", content=body, headers={"content-type": content_type}))
    assert (answer.code, answer.content["expected"]) == (400, expected)


def test_a_body_without_a_stated_length_is_counted(client: httpx.Client, served: Served) -> None:
    pieces = (b"x" * 100_000 for _ in range(5))
    answer = reply_of(client.post("/v1/plan", content=pieces, headers=JSON))
    assert (answer.code, answer.name, answer.content["field"]) == (413, "too-large", "body")
    assert answer.content["expected"] == "at most 400000 bytes"


def test_a_stated_length_over_the_limit_is_refused_before_the_body(served: Served) -> None:
    host, port = served.address.http.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as link:
        link.sendall(b"POST /v1/plan HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n")  # and no body
        assert link.recv(65536).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("method", "path", "status", "name"),
    [("GET", "/nowhere", 404, "not-found"), ("GET", "/v1/plan", 405, "method-not-allowed")],
)
def test_errors_of_the_framework_are_problems(
    method: str, path: str, status: int, name: str, client: httpx.Client
) -> None:
    response = client.request(method, path)
    assert (reply_of(response).code, reply_of(response).name) == (status, name)
    assert response.json()["instance"].startswith("urn:uuid:")
    assert response.headers.get("allow") == ("POST" if status == 405 else None)


def test_an_invalid_path_parameter_is_a_problem() -> None:
    app = create_http_app(RecordingPolicy(), example_limits(), Metrics())

    @app.get("/probe/{number}")
    async def probe(number: int) -> int:
        return number

    answer = reply_of(in_process(app, "/probe/seven"))
    assert (answer.code, answer.content["field"], answer.content["actual"]) == (400, "path.number", "'seven'")


def in_process(app: FastAPI, path: str) -> httpx.Response:
    import asyncio

    async def get() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return await client.get(path)

    return asyncio.run(get())


@pytest.mark.parametrize(
    ("error", "status", "name", "retryable"),
    [
        (Overloaded("full", retry_after_s=2.5, predicted_s=0.75), 429, "overloaded", True),
        (DeadlineExceeded("late", Missed(-12.5, 2, 8, 3)), 504, "deadline-exceeded", False),
        (BackendError("the model failed"), 503, "backend-error", True),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_failure_of_the_service_is_reported_without_a_field(
    error: Exception, status: int, name: str, retryable: bool, client: httpx.Client, served: Served
) -> None:
    served.policy.error = error
    response = client.post("/v1/plan", json=GOOD)
    answer = reply_of(response)
    assert (answer.code, answer.name, answer.content["retryable"]) == (status, name, retryable)
    assert answer.content["detail"] == str(error)
    assert "field" not in answer.content
    assert response.headers.get("retry-after") == ("3" if status == 429 else None)
    assert answer.content.get("retry_after_s") == (2.5 if status == 429 else None)
    assert answer.content.get("predicted_s") == (0.75 if status == 429 else None)
    spent = {name: answer.content.get(name) for name in ("deadline", "slack_ms", "iterations_done")}
    missed = {"deadline": "missed", "slack_ms": -12.5, "iterations_done": 2}
    assert spent == (missed if status == 504 else dict.fromkeys(missed))


def test_health_and_readiness(client: httpx.Client, served: Served) -> None:
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}
    served.policy.ready = False
    assert client.get("/healthz").status_code == 200
    assert reply_of(client.get("/readyz")).code == 503


def test_metrics_are_prometheus_text(client: httpx.Client) -> None:
    client.post("/v1/plan", json=GOOD)
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    assert 'wavserve_requests_total{edge="http",outcome="ok"}' in response.text


def test_the_openapi_document_is_complete(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    routes = {path: list(methods) for path, methods in document["paths"].items()}
    assert routes == {
        "/v1/plan": ["post"],
        "/v1/sessions/{session_id}/reset": ["post"],
        "/v1/policies": ["get"],
        "/healthz": ["get"],
        "/readyz": ["get"],
        "/metrics": ["get"],
    }
    assert set(document["paths"]["/v1/plan"]["post"]["requestBody"]["content"]) == {
        "application/json",
        "multipart/form-data",
    }
    [header] = document["paths"]["/v1/plan"]["post"]["parameters"]
    assert (header["name"], header["in"]) == ("x-deadline-ms", "header")
    schemas = document["components"]["schemas"]
    for name in references(document):
        assert name in schemas
    assert "num_iterations" in schemas["PlanBody"]["properties"]["planner"]["properties"]
    page = client.get("/docs").text
    assets = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(assets) == 3
    for asset in assets:  # a robot's network is closed, so nothing may come from outside
        assert client.get(asset).status_code == 200


def references(tree: object) -> Iterator[str]:
    if isinstance(tree, dict):
        if isinstance(tree.get("$ref"), str):
            yield tree["$ref"].removeprefix("#/components/schemas/")
        for value in tree.values():
            yield from references(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from references(value)


def test_a_robot_that_disconnects_cancels_its_plan(served: Served) -> None:
    started, cancelled = threading.Event(), threading.Event()
    served.policy.hold, served.policy.started, served.policy.cancelled = True, started.set, cancelled.set
    body = json.dumps(GOOD).encode()
    host, port = served.address.http.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as link:
        head = "POST /v1/plan HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        link.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert started.wait(30)
    assert cancelled.wait(30)


def test_a_deadline_in_the_header_counts_like_one_in_the_body(client: httpx.Client, served: Served) -> None:
    before = time.monotonic()
    for header, body in (("5000", 60_000), ("60000", 5_000)):
        client.post("/v1/plan", json=GOOD | {"deadline_ms": body}, headers={"x-deadline-ms": header})
    client.post("/v1/plan", json=GOOD)
    after = time.monotonic()
    first, second, none = served.policy.deadlines
    assert none is None
    for deadline in (first, second):
        assert deadline is not None
        assert before + 5 <= deadline <= after + 5
    assert [deadline is not None for deadline in served.policy.reserved] == [True, True, False]


@pytest.mark.parametrize("header", ["0", "-5", "1.5", "soon", "4294967296", "9" * 5000, "\u0665"])
def test_a_malformed_deadline_header_is_refused(header: str, client: httpx.Client, served: Served) -> None:
    answer = reply_of(client.post("/v1/plan", json=GOOD, headers={"x-deadline-ms": header.encode()}))
    assert (answer.code, answer.content["field"]) == (400, "x-deadline-ms")
    assert not served.policy.requests


def test_a_request_is_refused_before_its_body_arrives(served: Served) -> None:
    """The headers are enough: the robot need not send the images."""
    served.policy.reserve_error = Overloaded("full", retry_after_s=2.5, predicted_s=0.75)
    host, port = served.address.http.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as link:
        head = "POST /v1/plan HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nX-Deadline-Ms: 5\r\n"
        link.sendall(f"{head}Content-Length: 50000\r\n\r\n".encode())
        answer = b""
        while not answer.endswith(b"}"):  # headers and body may arrive separately
            part = link.recv(65536)
            assert part, answer
            answer += part
    assert answer.startswith(b"HTTP/1.1 429")
    assert b'"predicted_s":0.75' in answer
    assert not served.policy.requests


def test_the_shortest_of_several_deadlines_counts(served: Served) -> None:
    headers = [("x-deadline-ms", "60000"), ("x-deadline-ms", "5000"), ("x-deadline-ms", "70000")]
    before = time.monotonic()
    httpx.post(f"{served.address.http}/v1/plan", json=GOOD, headers=headers, timeout=30)
    [deadline] = served.policy.deadlines
    assert deadline is not None
    assert before + 5 <= deadline <= time.monotonic() + 5


def upload(served: Served, *headers: str) -> socket.socket:
    """A connection on which the headers of a request and one byte of its body were sent."""
    host, port = served.address.http.removeprefix("http://").split(":")
    link = socket.create_connection((host, int(port)), timeout=30)
    head = "POST /v1/plan HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50000\r\n"
    link.sendall(f"{head}{''.join(f'{header}{chr(13)}{chr(10)}' for header in headers)}\r\n{{".encode())
    return link


def test_a_body_that_is_late_is_not_waited_for(served: Served) -> None:
    with upload(served, "X-Deadline-Ms: 100") as link:
        assert link.recv(65536).startswith(b"HTTP/1.1 504")
        while link.recv(65536):  # the rest of the answer, then the end of the connection
            pass
    assert not served.policy.requests


def requests_ended(client: httpx.Client, outcome: str) -> float:
    found = re.search(rf'wavserve_requests_total{{edge="http",outcome="{outcome}"}} (.*)', client.get("/metrics").text)
    return float(found[1]) if found else 0.0


def test_a_disconnect_during_the_upload_counts_as_cancelled(served: Served, client: httpx.Client) -> None:
    cancelled, internal = (requests_ended(client, outcome) for outcome in ("cancelled", "internal"))
    upload(served).close()
    for _ in range(600):
        if requests_ended(client, "cancelled") > cancelled:
            break
        time.sleep(0.05)
    assert requests_ended(client, "cancelled") == cancelled + 1
    assert requests_ended(client, "internal") == internal


def test_a_connection_survives_a_refusal_at_admission(served: Served) -> None:
    with httpx.Client(base_url=served.address.http, timeout=30) as client:
        served.policy.reserve_error = Overloaded("full")
        assert [client.post("/v1/plan", json=GOOD).status_code for _ in range(3)] == [429] * 3
        served.policy.reserve_error = None
        assert client.post("/v1/plan", json=GOOD).status_code == 200


def test_a_connection_survives_a_refused_request(served: Served) -> None:
    robot = JsonRobot(served.address)
    assert robot.plan(example_observation(policy="other")).code == 404
    assert robot.plan(example_observation()).code == 200
    robot.close()
