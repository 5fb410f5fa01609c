"""One served example policy per test module, and a robot for each wire format."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.edge.fakes import RecordingPolicy, example_limits
from tests.edge.robots import ROBOTS, GrpcRobot, Robot, serving
from tests.edge.served import Served
from wavserve.system.telemetry import Metrics


@pytest.fixture(scope="module")
def running() -> Iterator[Served]:
    policy, metrics = RecordingPolicy(), Metrics()
    with serving(policy, example_limits(), metrics) as address:
        yield Served(policy, metrics, address)


@pytest.fixture
def served(running: Served) -> Served:
    """The running server, with its policy reset."""
    vars(running.policy).update(vars(RecordingPolicy()))
    return running


@pytest.fixture
def client(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.address.http, timeout=30) as client:
        yield client


@pytest.fixture(params=ROBOTS, ids=lambda robot: robot.kind)
def robot(request: pytest.FixtureRequest, served: Served) -> Iterator[Robot]:
    robot: Robot = request.param(served.address)
    yield robot
    robot.close()


@pytest.fixture
def grpc_robot(served: Served) -> Iterator[GrpcRobot]:
    robot = GrpcRobot(served.address)
    yield robot
    robot.close()
