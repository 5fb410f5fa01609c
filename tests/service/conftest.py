"""One service for all tests that do not stop it: with the models in its own process, and in an embedded Triton."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.service.rig import REPOSITORY, Server, start
from wavserve.backends.triton.wheel import find_obstacle
from wavserve.bundle.bundle import Bundle
from wavserve.clients.plan_client import PlanClient


@pytest.fixture(scope="session")
def local_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """It makes its bundle by itself, as a first start does."""
    running = start(tmp_path_factory.mktemp("service"), "local")
    yield running
    running.stop()


@pytest.fixture(scope="session")
def triton_server(tmp_path_factory: pytest.TempPathFactory, tiny: Bundle) -> Iterator[Server]:
    if (obstacle := find_obstacle(REPOSITORY)) is not None:
        pytest.skip(f"no real Triton on this machine: {obstacle}")
    running = start(tmp_path_factory.mktemp("service"), "triton-embedded", "--bundle", str(tiny.folder))
    yield replace(running, bundle=tiny.folder)
    running.stop()


@pytest.fixture(scope="session", params=["local", "triton-embedded"])
def server(request: pytest.FixtureRequest) -> Server:
    """Both stay, because a worker has tests of the one and of the other in turn."""
    fixture = {"local": "local_server", "triton-embedded": "triton_server"}[request.param]
    running: Server = request.getfixturevalue(fixture)
    return running


@pytest.fixture
def client(server: Server) -> Iterator[PlanClient]:
    with PlanClient(server.grpc) as connected:
        yield connected
