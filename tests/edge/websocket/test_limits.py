"""A websocket stays within the limits of its HTTP connection, and an idle one stays open."""

from __future__ import annotations

import time

import httpx
import pytest

from tests.edge.fakes import example_limits
from tests.edge.http.links import connect
from tests.edge.robots import serving
from tests.edge.websocket.clients import CONFIG, connected, libero
from tests.edge.websocket.policies import WholeChunks
from tests.edge.websocket.test_openpi import eventually
from wavserve.edge.http.open_connections import ConnectionLimits
from wavserve.system.telemetry import Metrics


def test_a_websocket_counts_as_a_connection_of_its_address() -> None:
    limits = ConnectionLimits(max_connections=2, max_per_address=2)
    with serving(WholeChunks(), example_limits(), Metrics(), limits, CONFIG) as address:
        health = f"{address.http}/healthz"
        with connected(address.http) as first, connected(address.http):
            assert httpx.get(health).status_code == 503
            assert "actions" in first.infer(libero())
        eventually(lambda: httpx.get(health).status_code == 200)


@pytest.mark.parametrize(
    ("line", "headers", "status"),
    [
        ("POST / HTTP/1.1", "Content-Length: 5\r\n", b"404"),
        ("POST / HTTP/1.1", "", b"404"),
        ("GET / HTTP/1.1", "Content-Length: 5\r\n", b"404"),
        ("GET / HTTP/1.1", "Transfer-Encoding: chunked\r\n", b"404"),
        ("POST /reset HTTP/1.1", "Content-Length: 0\r\n", b"200"),
        ("GET / HTTP/1.1", "Content-Length: 0\r\n", b"101"),
    ],
)
def test_a_request_with_a_body_is_no_websocket(line: str, headers: str, status: bytes) -> None:
    """A proxy that reads the body takes its bytes for another request than we do."""
    upgrade = "Host: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    with (
        serving(WholeChunks(), example_limits(), Metrics(), compat=CONFIG) as address,
        connect(address) as link,
    ):
        link.sendall(f"{line}\r\n{upgrade}{key}{headers}\r\n".encode())
        assert link.recv(65536).split()[1] == status


def test_the_time_limits_of_requests_do_not_end_a_websocket() -> None:
    limits = ConnectionLimits(max_connections=9, max_per_address=9, head_s=0.2, idle_s=1, answer_s=0.2)
    server = serving(WholeChunks(), example_limits(), Metrics(), limits, CONFIG)
    with server as address, connected(address.http) as client:
        client.infer(libero())
        time.sleep(1.5)
        assert "actions" in client.infer(libero())
