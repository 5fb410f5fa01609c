"""A websocket stays within the limits of its HTTP connection, and an idle one stays open."""

from __future__ import annotations

import time

import httpx

from tests.edge.fakes import example_limits
from tests.edge.robots import serving
from tests.edge.websocket.clients import CONFIG, connected, libero
from tests.edge.websocket.policies import WholeChunks
from tests.edge.websocket.test_openpi import eventually
from wavserve.edge.http.connections import ConnectionLimits
from wavserve.system.telemetry import Metrics


def test_a_websocket_counts_as_a_connection_of_its_address() -> None:
    limits = ConnectionLimits(max_connections=2, max_per_address=2)
    with serving(WholeChunks(), example_limits(), Metrics(), limits, CONFIG) as address:
        health = f"{address.http}/healthz"
        with connected(address.http) as first, connected(address.http):
            assert httpx.get(health).status_code == 503
            assert "actions" in first.infer(libero())
        eventually(lambda: httpx.get(health).status_code == 200)


def test_the_time_limits_of_requests_do_not_end_a_websocket() -> None:
    limits = ConnectionLimits(max_connections=9, max_per_address=9, head_s=0.2, idle_s=1, answer_s=0.2)
    server = serving(WholeChunks(), example_limits(), Metrics(), limits, CONFIG)
    with server as address, connected(address.http) as client:
        client.infer(libero())
        time.sleep(1.5)
        assert "actions" in client.infer(libero())
