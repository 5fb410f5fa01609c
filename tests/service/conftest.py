"""One service for all tests that do not stop it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from service_rig import Server, start

from wavserve.clients.plan_client import PlanClient


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = start(tmp_path_factory.mktemp("service"))
    yield running
    running.stop()


@pytest.fixture
def client(server: Server) -> Iterator[PlanClient]:
    with PlanClient(server.grpc) as connected:
        yield connected
