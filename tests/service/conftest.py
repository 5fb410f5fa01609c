"""One service for all tests that do not stop it: with the models in its own process, and in an embedded Triton."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.service.rig import REPOSITORY, Server, start
from wavserve.backends.triton.wheel import find_obstacle
from wavserve.clients.plan_client import PlanClient


@pytest.fixture(scope="session", params=["local", "triton-embedded"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if request.param == "triton-embedded" and (obstacle := find_obstacle(REPOSITORY)) is not None:
        pytest.skip(f"no real Triton on this machine: {obstacle}")
    running = start(tmp_path_factory.mktemp("service"), request.param)
    yield running
    running.stop()


@pytest.fixture
def client(server: Server) -> Iterator[PlanClient]:
    with PlanClient(server.grpc) as connected:
        yield connected
