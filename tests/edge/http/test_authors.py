"""The HTTP API of the authors' server: its bytes, its sessions, and every bad part by name."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest

from tests.edge.fakes import ACTION_DIM, CHUNK, INSTRUCTION, STATE_DIM, example_spec
from tests.edge.robots import serving
from tests.edge.served import Served
from tests.edge.websocket.clients import CONFIG, EXECUTED_STEPS
from tests.edge.websocket.policies import WholeChunks
from wavserve.core.errors import Overloaded
from wavserve.core.resize import resize
from wavserve.edge.compat.tables import CompatConfig
from wavserve.edge.limits import EdgeLimits
from wavserve.system.telemetry import Metrics

LIMITS = EdgeLimits(max_body_bytes=2_000_000, max_image_bytes=500_000, max_image_pixels=512 * 512)
HEAD = np.arange(240 * 424 * 3, dtype=np.uint32).astype(np.uint8).reshape(240, 424, 3)
HAND = HEAD[:, :320][::-1]
STATE = np.linspace(-0.5, 0.5, STATE_DIM, dtype="<f4")
PARTS = {
    "front_head": HEAD.tobytes(),
    "left_hand": HAND.tobytes(),
    "right_hand": HEAD[:, :320].tobytes(),
    "state": STATE.tobytes(),
    "json": json.dumps({"instruction": INSTRUCTION}).encode(),
}
BOUNDARY = "4f8a4b2b9c1d4e0fa6a3d2c1b0e9f8a7"


def golden_body() -> bytes:
    """The body of `requests.post(url, files=...)`, as the authors' client sends it: file parts without a type."""
    parts = b"".join(
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}"\r\n\r\n'.encode()
        + data
        + b"\r\n"
        for name, data in PARTS.items()
    )
    return parts + f"--{BOUNDARY}--\r\n".encode()


@pytest.fixture(scope="module")
def running() -> Iterator[Served]:
    policy, metrics = WholeChunks(example_spec("bilinear")), Metrics()
    with serving(policy, LIMITS, metrics, compat=CONFIG) as address:
        yield Served(policy, metrics, address)


@pytest.fixture
def served(running: Served) -> Served:
    vars(running.policy).update(vars(WholeChunks(example_spec("bilinear"))))
    return running


def predict(client: httpx.Client, session: str | None = None, **changes: bytes | None) -> httpx.Response:
    parts = {name: data for name, data in (PARTS | changes).items() if data is not None}
    headers = {} if session is None else {"X-Session-Id": session}
    return client.post("/predict", files={name: (name, data) for name, data in parts.items()}, headers=headers)


def test_the_golden_bytes_of_the_authors_client(client: httpx.Client, served: Served) -> None:
    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    answer = client.post("/predict", content=golden_body(), headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/octet-stream")
    expected = np.linspace(-1, 1, CHUNK * ACTION_DIM, dtype="<f4")
    assert answer.content == expected.tobytes()  # without a header for the shape
    [request] = served.policy.requests
    np.testing.assert_array_equal(request.state, STATE)
    np.testing.assert_array_equal(request.images["agentview"], resize(HEAD, 128, 128, "bilinear"))
    assert (request.instruction, request.executed_steps) == (INSTRUCTION, EXECUTED_STEPS)


def test_a_request_without_a_name_stands_alone_and_leaves_no_session(client: httpx.Client, served: Served) -> None:
    for _ in range(2):
        predict(client)
    assert [each.session_id for each in served.policy.requests] == [None, None]
    until = time.monotonic() + 10
    while len(set(served.policy.ended)) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    assert len(set(served.policy.ended)) == 2


def test_a_named_session_continues_and_two_names_are_two_sessions(client: httpx.Client, served: Served) -> None:
    for name in ("a", "b", "a", "b"):
        assert predict(client, name).status_code == 200
    found = [(each.session_id, each.sequence) for each in served.policy.requests]
    assert [session for session, _ in found[:2]] == [None, None]
    assert [sequence for _, sequence in found[2:]] == [1, 1]
    assert len({session for session, _ in found[2:]}) == 2


def test_a_reset_forgets_a_named_session(client: httpx.Client, served: Served) -> None:
    predict(client, "robot")
    answer = client.post("/reset", headers={"X-Session-Id": "robot"})
    assert (answer.status_code, answer.text) == (200, "Reset OK\n")
    predict(client, "robot")
    assert served.policy.requests[-1].session_id is None
    assert len(served.policy.ended) == 1


@pytest.mark.parametrize("headers", [{}, {"X-Session-Id": "never-seen"}])
def test_a_reset_of_nothing_is_fine(headers: dict[str, str], client: httpx.Client) -> None:
    assert client.post("/reset", headers=headers).text == "Reset OK\n"


def test_two_requests_of_a_session_at_a_time_are_refused(client: httpx.Client, served: Served) -> None:
    started, gate = threading.Event(), threading.Event()
    served.policy.started, served.policy.gate = started.set, gate
    with httpx.Client(base_url=served.address.http, timeout=60) as other, ThreadPoolExecutor(1) as robot:
        first = robot.submit(predict, other, "robot")
        assert started.wait(20)
        answer = predict(client, "robot")
        gate.set()
        assert (answer.status_code, answer.json()["field"]) == (409, "x-session-id")
        assert first.result(20).status_code == 200


BAD: dict[str, tuple[dict[str, bytes | None], int, str]] = {
    "a missing picture": ({"left_hand": None}, 400, "left_hand"),
    "no state": ({"state": None}, 400, "state"),
    "no json": ({"json": None}, 400, "json"),
    "an unknown part": ({"extra": b"x"}, 400, "body"),
    "a byte too few": ({"front_head": PARTS["front_head"][:-1]}, 400, "front_head"),
    "a byte too many": ({"left_hand": PARTS["left_hand"] + b"x"}, 400, "left_hand"),
    "half a number": ({"state": PARTS["state"][:-1]}, 400, "state"),
    "a short state": ({"state": PARTS["state"][:-4]}, 400, "state"),
    "NaN": ({"state": np.full(STATE_DIM, np.nan, "<f4").tobytes()}, 400, "state[0]"),
    "no JSON": ({"json": b"{"}, 400, "json"),
    "a list": ({"json": b"[]"}, 400, "json"),
    "no instruction": ({"json": b"{}"}, 400, "json"),
    "an unknown field": ({"json": b'{"instruction": "go", "seed": 1}'}, 400, "json"),
    "an instruction of numbers": ({"json": b'{"instruction": 3}'}, 400, "json"),
    "an empty instruction": ({"json": b'{"instruction": ""}'}, 400, "prompt"),
    "a reset": ({"json": b'{"instruction": "<reset>go"}'}, 400, "prompt"),
    "a long instruction": ({"json": json.dumps({"instruction": "x" * 65}).encode()}, 413, "instruction"),
}


@pytest.mark.parametrize(("changes", "status", "field"), BAD.values(), ids=BAD)
def test_a_bad_part_is_refused_by_name(
    changes: dict[str, bytes | None], status: int, field: str, client: httpx.Client, served: Served
) -> None:
    answer = predict(client, **changes)
    assert (answer.status_code, answer.json()["field"]) == (status, field)
    assert not served.policy.requests


@pytest.mark.parametrize("content_type", ["application/json", "multipart/form-data", ""])
def test_a_body_of_another_type_is_refused(content_type: str, client: httpx.Client) -> None:
    answer = client.post("/predict", content=b"{}", headers={"content-type": content_type})
    assert (answer.status_code, answer.json()["field"]) == (415, "content-type")


@pytest.mark.parametrize("name", ["", "x" * 129])
def test_a_session_name_has_1_to_128_characters(name: str, client: httpx.Client) -> None:
    assert predict(client, name).json()["field"] == "session_id"


def test_the_refusals_of_the_other_edges_hold_here_too(client: httpx.Client, served: Served) -> None:
    assert isinstance(served.policy, WholeChunks)
    served.policy.cuts = True
    assert (answer := predict(client)).status_code == 502
    assert answer.json()["type"].endswith("unsafe-chunk")
    served.policy.reserve_error = Overloaded("full", 3.0)
    assert ((answer := predict(client)).status_code, answer.headers["retry-after"]) == (429, "3")
    served.policy.ready = False
    served.policy.reserve_error = None
    assert predict(client).status_code == 503


def test_a_deadline_counts(client: httpx.Client, served: Served) -> None:
    files: Any = {name: (name, data) for name, data in PARTS.items()}
    client.post("/predict", files=files, headers={"x-deadline-ms": "60000"})
    assert served.policy.deadlines[0] is not None


@pytest.mark.parametrize(
    ("config", "status", "name"),
    [
        (CompatConfig(1, CONFIG.tables), 409, "contract-mismatch"),
        (CompatConfig(1, allow_untrained=True), 501, "unsupported"),
    ],
    ids=["random weights", "no table"],
)
def test_what_the_settings_do_not_allow(config: CompatConfig, status: int, name: str) -> None:
    with (
        serving(WholeChunks(), LIMITS, Metrics(), compat=config) as address,
        httpx.Client(base_url=address.http) as own,
    ):
        answer = predict(own)
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:wavserve:problem:{name}")
