"""What a client sees when the service answers a request without reading its body: the whole answer, then the end."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable

import httpx
import pytest

from tests.edge.bodies import GOOD
from tests.edge.http.links import answer_on, connect, head_of
from tests.edge.served import Served
from wavserve.core.errors import DeadlineExceeded, NotReady, Overloaded

CLOSE = b"\r\nconnection: close"


def ready(served: Served) -> None:
    pass


def overloaded(served: Served) -> None:
    served.policy.reserve_error = Overloaded("full")


def not_ready(served: Served) -> None:
    served.policy.reserve_error = NotReady("the service is starting")


def too_late(served: Served) -> None:
    served.policy.reserve_error = DeadlineExceeded("no plan was ever fast enough")


REFUSALS = [
    ("POST /v1/plan", "", not_ready, 503),
    ("POST /v1/plan", "", overloaded, 429),
    ("POST /v1/plan", "", too_late, 504),
    ("POST /v1/plan", "X-Deadline-Ms: soon", ready, 400),
    ("POST /v1/plan", "Content-Length: 20000000", ready, 413),
    ("POST /v1/nowhere", "", ready, 404),
    ("POST /healthz", "", ready, 405),
    ("GET /v1/plan", "", ready, 405),
    ("POST /v1/sessions/mine/reset", "", ready, 200),  # answered, and its body is of no interest
]


@pytest.mark.parametrize(("line", "header", "state", "status"), REFUSALS)
def test_an_answer_before_the_body_closes_the_connection_and_says_so(
    served: Served, line: str, header: str, state: Callable[[Served], None], status: int
) -> None:
    state(served)
    with connect(served.address) as link:
        own = [header] if header else []
        link.sendall(head_of(line, *own, *([] if "Length" in header else ["Content-Length: 5000"])) + b"{")
        head, body = answer_on(link)
        assert head.startswith(f"HTTP/1.1 {status} ".encode())
        assert CLOSE in head.lower()
        assert json.loads(body)
        assert link.recv(1000) == b""


@pytest.mark.parametrize("status", [413, 429, 503])
def test_a_client_that_sends_all_before_it_reads_gets_the_answer(served: Served, status: int) -> None:
    """The unread rest of the body must not turn into a reset that destroys the answer."""
    {413: ready, 429: overloaded, 503: not_ready}[status](served)
    size = 20_000_000 if status == 413 else 350_000
    with connect(served.address) as link:
        link.sendall(head_of("POST /v1/plan", f"Content-Length: {size}") + bytes(size))
        head, body = answer_on(link)
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert json.loads(body)["status"] == status


def test_a_chunked_body_over_the_limit_is_answered_too(served: Served) -> None:
    with connect(served.address) as link:
        link.sendall(head_of("POST /v1/plan", "Content-Type: application/json", "Transfer-Encoding: chunked"))
        for _ in range(20):
            link.sendall(b"100000\r\n" + bytes(0x100000) + b"\r\n")
        head, body = answer_on(link)
    assert head.startswith(b"HTTP/1.1 413 ")
    assert CLOSE in head.lower()
    assert json.loads(body)["status"] == 413


def test_a_refused_client_that_waits_for_100_continue_is_not_told_to_go_on(served: Served) -> None:
    overloaded(served)
    with connect(served.address) as link:
        link.sendall(head_of("POST /v1/plan", "Content-Length: 5000", "Expect: 100-continue"))
        head, _ = answer_on(link)
        assert head.startswith(b"HTTP/1.1 429 ")
        assert CLOSE in head.lower()
        assert link.recv(1000) == b""


def test_an_admitted_client_that_waits_for_100_continue_is_told_to_go_on(served: Served) -> None:
    body = json.dumps(GOOD).encode()
    with connect(served.address) as link:
        asks = head_of("POST /v1/plan", "Content-Type: application/json", f"Content-Length: {len(body)}")
        link.sendall(asks[:-2] + b"Expect: 100-continue\r\n\r\n")
        assert link.recv(1000).startswith(b"HTTP/1.1 100 ")
        link.sendall(body)
        head, _ = answer_on(link)
    assert head.startswith(b"HTTP/1.1 200 ")
    assert CLOSE not in head.lower()


@pytest.mark.parametrize("line", ["GET /healthz", "GET /nowhere", "POST /healthz", "POST /v1/sessions/mine/reset"])
def test_an_answer_to_a_request_without_a_body_keeps_the_connection(served: Served, line: str) -> None:
    with connect(served.address) as link:
        for _ in range(3):
            link.sendall(head_of(line))
            head, _ = answer_on(link)
            assert CLOSE not in head.lower()


BROKEN_CHUNKS = head_of("POST /v1/plan", "Transfer-Encoding: chunked") + b"5\r\nabcde\r\nXYZ\r\n"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"PLAN ME\r\n\r\n" + bytes(100_000),
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 200_000,
        head_of("POST /v1/plan", "Content-Length: many"),
        BROKEN_CHUNKS,
    ],
    ids=["no-http", "long-head", "length", "chunks"],
)
def test_a_malformed_request_gets_a_problem(
    served: Served, request_bytes: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with connect(served.address) as link:
        link.sendall(request_bytes)
        head, body = answer_on(link)
        assert head.startswith(b"HTTP/1.1 400 ")
        assert b"application/problem+json" in head
        assert CLOSE in head.lower()
        assert json.loads(body)["status"] == 400
        assert link.recv(1000) == b""
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


def test_a_client_of_java_that_offers_http2_gets_its_plan(served: Served) -> None:
    """Java's HttpClient offers an upgrade to h2c with every first request, and sends the body along."""
    body = json.dumps(GOOD).encode()
    offer = ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk"]
    with connect(served.address) as link:
        stated = ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        link.sendall(head_of("POST /v1/plan", *offer, *stated))
        link.sendall(body)
        head, answer = answer_on(link)
    assert head.startswith(b"HTTP/1.1 200 ")
    assert json.loads(answer)["actions"]


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/v1/policies", "/metrics", "/docs", "/openapi.json", "/nowhere", "/v1/plan"]
)
def test_head_answers_like_get_without_a_body(client: httpx.Client, path: str) -> None:
    asked, told = client.get(path), client.head(path)
    assert (told.status_code, told.content) == (asked.status_code, b"")
    assert told.headers["content-type"] == asked.headers["content-type"]
    if asked.is_success and path != "/metrics":  # its counters count these very requests
        assert told.headers["content-length"] == str(len(asked.content))


@pytest.mark.parametrize("path", ["/v1/plan/", "/healthz/", "/v1/policies/", "/docs/", "/v1/sessions/mine/reset/"])
def test_a_trailing_slash_is_another_path(client: httpx.Client, path: str) -> None:
    """A redirect would lose the body of a POST on the way."""
    for answer in (client.get(path), client.post(path, json=GOOD)):
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_half_closed_connection_counts_as_gone(served: Served) -> None:
    """On the wire, `shutdown(SHUT_WR)` looks like `close()` until somebody writes."""
    started, cancelled = threading.Event(), threading.Event()
    served.policy.hold, served.policy.started, served.policy.cancelled = True, started.set, cancelled.set
    body = json.dumps(GOOD).encode()
    with connect(served.address) as link:
        stated = ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        link.sendall(head_of("POST /v1/plan", *stated) + body)
        assert started.wait(30)
        link.shutdown(socket.SHUT_WR)
        assert link.recv(1000) == b""
        assert cancelled.wait(30)
