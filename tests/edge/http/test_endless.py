"""Connections that would stay open for ever: late heads, idle ones, answers that nobody reads, too many at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest
from uvicorn.protocols.http.h11_impl import H11Protocol

from tests.edge.bodies import GOOD
from tests.edge.fakes import RecordingPolicy, example_limits
from tests.edge.http.links import answer_on, connect, head_of
from tests.edge.robots import Address, serving
from wavserve.edge.http.open_connections import ConnectionLimits, LogThrottle, OpenConnections
from wavserve.edge.http.server import create_http_server, throttle_accept_errors
from wavserve.system.telemetry import Metrics

QUICK = ConnectionLimits(
    max_connections=6, max_per_address=4, head_s=0.5, idle_s=1, answer_s=0.5, linger_s=0.5, max_drained_bytes=2_000_000
)


@pytest.fixture(scope="module")
def quick() -> Iterator[Address]:
    """A server whose limits on connections are small."""
    with serving(RecordingPolicy(), example_limits(), Metrics(), QUICK) as address:
        yield address


def test_a_head_that_does_not_end_is_answered_and_closed(quick: Address) -> None:
    with connect(quick) as link:
        link.sendall(b"POST /v1/plan HTTP/1.1\r\nHost: x\r\n")
        head, body = answer_on(link)
        assert head.startswith(b"HTTP/1.1 408 ")
        assert json.loads(body)["status"] == 408
        assert link.recv(1000) == b""


def test_a_head_that_trickles_is_closed(quick: Address) -> None:
    """Each byte must not start the clock again."""
    with connect(quick) as link:
        link.settimeout(0.1)
        assert ended(link, trickle=b"x")


@pytest.mark.parametrize("before", [b"", head_of("GET /healthz")], ids=["first", "next"])
def test_a_connection_without_a_request_is_closed(quick: Address, before: bytes) -> None:
    with connect(quick) as link:
        if before:
            link.sendall(before)
            answer_on(link)
        assert link.recv(1000) == b""


def test_the_head_of_a_next_request_has_the_same_limit(quick: Address) -> None:
    with connect(quick) as link:
        link.sendall(head_of("GET /healthz"))
        answer_on(link)
        link.sendall(b"GET /hea")
        head, _ = answer_on(link)
        assert head.startswith(b"HTTP/1.1 408 ")


def test_a_body_that_trickles_after_its_answer_is_closed(quick: Address) -> None:
    with connect(quick) as link:
        link.sendall(head_of("POST /nowhere", "Content-Length: 100000"))
        answer_on(link)
        link.settimeout(0.1)
        assert ended(link, trickle=b"x")


def test_a_body_without_end_after_its_answer_is_cut(quick: Address) -> None:
    with connect(quick) as link:
        link.sendall(head_of("POST /nowhere", "Content-Length: 99999999"))
        with pytest.raises(ConnectionError):
            link.sendall(bytes(99_999_999))


def test_an_answer_that_nobody_reads_is_dropped(quick: Address) -> None:
    """Requests are sent until the answers fill the buffers between the two."""
    with connect(quick) as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        asks = head_of("GET /openapi.json") * 100
        link.settimeout(0.2)
        with contextlib.suppress(TimeoutError, ConnectionError):
            for _ in range(200):
                link.sendall(asks)
        until_free(quick)


def test_one_address_gets_so_many_connections_and_keeps_those_it_has(quick: Address) -> None:
    with ExitStack() as stack:
        robot = stack.enter_context(httpx.Client(base_url=quick.http, timeout=30))
        assert robot.post("/v1/plan", json=GOOD).status_code == 200
        for _ in range(3):
            stack.enter_context(connect(quick))
        one_more = stack.enter_context(connect(quick))
        head, body = answer_on(one_more)
        assert head.startswith(b"HTTP/1.1 503 ")
        assert "limits.max_connections_per_address" in json.loads(body)["detail"]
        assert robot.post("/v1/plan", json=GOOD).status_code == 200
    until_free(quick)


def test_the_connections_of_all_addresses_have_a_limit() -> None:
    connections = OpenConnections(ConnectionLimits(max_connections=3, max_per_address=2))
    for address in ("a", "a", "b"):
        assert connections.obstacle(address) is None
        connections.add(address)
    assert "max_connections_per_address" in str(connections.obstacle("a"))
    assert "limits.max_connections:" in str(connections.obstacle("c"))
    connections.remove("a")
    assert connections.obstacle("c") is None


def test_a_message_without_end_is_due_once_in_a_while() -> None:
    now = 100.0
    throttle = LogThrottle(lambda: now)
    assert [throttle.due() for _ in range(4)] == [1, 0, 0, 0]
    now += 11
    assert throttle.due() == 4


def test_failures_to_accept_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.new_event_loop()
    throttle_accept_errors(loop)
    caplog.set_level(logging.INFO)
    failure = {"message": "socket.accept() out of system resource", "exception": OSError(24, "Too many open files")}
    for _ in range(1000):
        loop.call_exception_handler(failure)
    loop.call_exception_handler({"message": "another"})
    loop.close()
    first, second = caplog.records
    assert "Too many open files" in first.getMessage()
    assert first.exc_info is None
    assert second.name == "asyncio"


def test_what_is_installed_and_the_environment_choose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "many")
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")

    async def app(scope: object, receive: object, send: object) -> None: ...

    config = create_http_server(app, QUICK, grace_s=5).config
    config.load()
    protocol = config.http_protocol_class.func  # type: ignore[attr-defined]  # a partial of it
    assert issubclass(protocol, H11Protocol)
    assert config.ws_protocol_class is None
    assert config.loaded_app is app  # nothing around it
    assert (config.workers, config.interface, config.timeout_keep_alive) == (1, "asgi3", QUICK.idle_s)
    assert ConnectionLimits(1, 1).idle_s == 75


def ended(link: socket.socket, trickle: bytes, num: int = 100) -> bool:
    """Whether the server closes the connection on which a byte arrives every 0.1 s."""
    for _ in range(num):
        try:
            link.sendall(trickle)
            if link.recv(65536) == b"":
                return True
        except TimeoutError:
            continue
        except ConnectionError:
            return True
    return False


def until_free(address: Address) -> None:
    """Waits until this address may open all its connections again."""
    for _ in range(100):
        with ExitStack() as stack:
            links = [stack.enter_context(connect(address)) for _ in range(QUICK.max_per_address)]
            links[-1].sendall(head_of("GET /healthz"))
            if answer_on(links[-1])[0].startswith(b"HTTP/1.1 200 "):
                return
        time.sleep(0.05)
    raise AssertionError("connections stay open")
