"""A robot's calls on a link that is dead: they end soon after the request's deadline, whatever the server does."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from tests.clients.robots import KINDS, AwaitingRobot, BlockingRobot
from tests.clients.servers import black_hole, resetting_process
from tests.edge.fakes import example_observation
from wavserve.clients.calls import GRACE_S, plan_call, policy_call, reset_call
from wavserve.core.errors import DeadlineExceeded, InvalidRequest, NotReady, Unreachable

SOON_S = 5.0
"""Generous for a loaded machine. Without a timeout the call waits 15 to 20 s."""


@pytest.mark.parametrize("scheme", ["", "http://"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_robot_with_a_deadline_does_not_wait_for_a_black_hole(
    kind: type[BlockingRobot] | type[AwaitingRobot], scheme: str
) -> None:
    with black_hole() as address:
        robot = kind(f"{scheme}{address}")
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            robot.plan(example_observation(deadline_ms=200))
        assert time.monotonic() - began < SOON_S
        robot.close()
        robot.end()


def test_a_robot_without_a_deadline_learns_that_nobody_answers() -> None:
    with black_hole() as address, BlockingRobot(address) as robot:
        began = time.monotonic()
        with pytest.raises(NotReady):
            robot.plan(example_observation())
        assert time.monotonic() - began < 10.0


@pytest.fixture
def stopped() -> Iterator[BlockingRobot]:
    """A robot that is connected to a server whose process is then stopped."""
    with resetting_process() as (address, process), BlockingRobot(address) as robot:
        robot.reset("s")
        os.kill(process.pid, signal.SIGSTOP)
        yield robot


def test_a_robot_with_a_deadline_does_not_wait_for_a_stopped_server(stopped: BlockingRobot) -> None:
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        stopped.plan(example_observation(deadline_ms=200))
    assert time.monotonic() - began < SOON_S


def test_a_call_may_take_its_deadline_and_half_a_second() -> None:
    assert plan_call(example_observation(deadline_ms=200)).timeout_s == pytest.approx(0.2 + GRACE_S)
    assert GRACE_S == 0.5
    assert plan_call(example_observation()).timeout_s is None
    assert reset_call("s").timeout_s is not None
    assert policy_call(None).timeout_s is not None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "target", ["ftp://127.0.0.1:8001", "127.0.0.1", "", ":8001", "::1:8001", "127.0.0.1:99999", "127.0.0.1:0"]
)
def test_a_target_that_is_no_address_is_refused(target: str, kind: type[BlockingRobot] | type[AwaitingRobot]) -> None:
    with pytest.raises(InvalidRequest, match="target: expected HOST:PORT"):
        kind(target)


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_that_does_not_resolve_is_named(kind: type[BlockingRobot] | type[AwaitingRobot]) -> None:
    robot = kind("robot.invalid:8001")
    with pytest.raises(Unreachable, match=r"resolving robot\.invalid"):
        robot.reset("s")
    robot.close()
    robot.end()
