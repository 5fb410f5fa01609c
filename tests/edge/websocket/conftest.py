"""One served example policy for the clients of other servers, and a client."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.edge.fakes import example_limits
from tests.edge.robots import serving
from tests.edge.served import Served
from tests.edge.websocket.clients import CONFIG, Client, connected
from tests.edge.websocket.policies import WholeChunks
from wavserve.system.telemetry import Metrics


@pytest.fixture(scope="module")
def running() -> Iterator[Served]:
    policy, metrics = WholeChunks(), Metrics()
    with serving(policy, example_limits(), metrics, compat=CONFIG) as address:
        yield Served(policy, metrics, address)


@pytest.fixture
def served(running: Served) -> Served:
    """The running server, with its policy reset."""
    vars(running.policy).update(vars(WholeChunks()))
    return running


@pytest.fixture
def openpi(served: Served) -> Iterator[Client]:
    with connected(served.address.http) as client:
        yield client
