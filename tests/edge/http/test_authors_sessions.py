"""A named session of the authors' API after failures: the service never assumes what the robot did not get."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.edge.fakes import example_spec
from tests.edge.http.test_authors import LIMITS, predict
from tests.edge.robots import serving
from tests.edge.served import Served
from tests.edge.websocket.clients import CONFIG, EXECUTED_STEPS
from tests.edge.websocket.policies import WholeChunks
from wavserve.core.errors import OutcomeUnknown, Overloaded
from wavserve.edge.http.authors import MAX_NAMED_SESSIONS
from wavserve.system.telemetry import Metrics


@pytest.fixture(scope="module")
def running() -> Iterator[Served]:
    policy, metrics = WholeChunks(example_spec("bilinear")), Metrics()
    with serving(policy, LIMITS, metrics, compat=CONFIG) as address:
        yield Served(policy, metrics, address)


@pytest.fixture
def policy(running: Served) -> WholeChunks:
    assert isinstance(running.policy, WholeChunks)
    vars(running.policy).update(vars(WholeChunks(example_spec("bilinear"))))
    return running.policy


@pytest.fixture
def robot(policy: WholeChunks, running: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=running.address.http, timeout=30) as client:
        yield client


def fail_with(error: Exception) -> Callable[[WholeChunks], None]:
    return lambda policy: vars(policy).update(error=error)


def cut(policy: WholeChunks) -> None:
    policy.cuts = True


def late(policy: WholeChunks) -> None:
    policy.late = True


def test_a_refused_request_moves_no_step(policy: WholeChunks, robot: httpx.Client) -> None:
    predict(robot, "a")
    policy.error = Overloaded("full")
    assert [predict(robot, "a").status_code for _ in range(3)] == [429] * 3
    policy.error = None
    assert predict(robot, "a").status_code == 200
    assert policy.requests[-1].control_step == policy.requests[-1].executed_steps == EXECUTED_STEPS
    assert not policy.resets


@pytest.mark.parametrize(
    ("fault", "status"),
    [(cut, 502), (late, 504), (fail_with(OutcomeUnknown("lost")), 503), (fail_with(RuntimeError("bug")), 500)],
    ids=["cut", "late", "unknown", "bug"],
)
def test_a_plan_that_the_robot_did_not_get_is_forgotten(
    fault: Callable[[WholeChunks], None], status: int, policy: WholeChunks, robot: httpx.Client
) -> None:
    predict(robot, "a")
    fault(policy)
    assert predict(robot, "a").status_code == status
    policy.cuts, policy.late, policy.error = False, False, None
    assert predict(robot, "a").status_code == 200
    assert policy.resets == ["session-1"]
    assert len({each.sequence for each in policy.requests}) == 3  # a number is not used again


def test_a_robot_that_hung_up_begins_anew(policy: WholeChunks, robot: httpx.Client, running: Served) -> None:
    predict(robot, "a")
    started, cancelled = threading.Event(), threading.Event()
    policy.hold, policy.started, policy.cancelled = True, started.set, cancelled.set
    with httpx.Client(base_url=running.address.http, timeout=0.5) as leaving, pytest.raises(httpx.TimeoutException):
        predict(leaving, "a")
    assert cancelled.wait(20)
    policy.hold = False
    assert predict(robot, "a").status_code == 200
    assert policy.resets == ["session-1"]


@pytest.mark.parametrize("num_before", [0, 1])
def test_a_reset_ends_the_plan_under_way(num_before: int, policy: WholeChunks, robot: httpx.Client) -> None:
    """The scene has changed: its actions are out of date."""
    for _ in range(num_before):
        predict(robot, "a")
    started, policy.gate = threading.Event(), threading.Event()
    policy.started = started.set
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(predict, robot, "a")
        assert started.wait(20)
        assert robot.post("/reset", headers={"X-Session-Id": "a"}).status_code == 200
        policy.gate.set()
        assert asked.result(20).status_code == 409
    assert predict(robot, "a").status_code == 200
    assert policy.requests[-1].session_id is None


def test_bodies_that_are_refused_push_no_session_out(policy: WholeChunks, robot: httpx.Client) -> None:
    predict(robot, "a")
    for number in range(MAX_NAMED_SESSIONS):
        robot.post("/predict", headers={"X-Session-Id": f"rude-{number}"})
    assert predict(robot, "a").status_code == 200
    assert policy.requests[-1].session_id == "session-1"
