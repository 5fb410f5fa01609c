"""A closed client: calls under way and later ones end with one typed error, on both clients."""

from __future__ import annotations

import asyncio
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.clients.gateways import ROBOT
from tests.clients.robots import KINDS, AwaitingRobot, BlockingRobot
from tests.edge.fakes import example_observation
from tests.edge.served import Served
from wavserve.clients.async_client import AsyncPlanClient
from wavserve.clients.loop_thread import LoopThread
from wavserve.clients.robot_client import RobotClient
from wavserve.core.errors import ClientClosed

WIRES = ("grpc", "http")

Kind = type[BlockingRobot] | type[AwaitingRobot]


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_call_after_the_end_is_refused(kind: Kind, wire: str, served: Served) -> None:
    robot = kind(getattr(served.address, wire))
    robot.reset("s")
    robot.close()
    robot.close()  # harmless
    with pytest.raises(ClientClosed, match="closed") as caught:
        robot.reset("s")
    assert not caught.value.retryable
    robot.end()


def test_work_that_stands_still_does_not_keep_a_program_from_ending() -> None:
    thread = LoopThread("stuck")

    async def never() -> None:
        await asyncio.Event().wait()

    ending = threading.Thread(target=thread.end, args=(never, 0.1), daemon=True)
    ending.start()
    ending.join(20)
    assert not ending.is_alive()


def test_a_thread_ends_although_its_last_work_fails() -> None:
    thread = LoopThread("failing")

    async def fail() -> None:
        raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        thread.end(fail)
    assert "failing" not in {each.name for each in threading.enumerate()}


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_call_under_way_ends_with_the_client(kind: Kind, wire: str, served: Served) -> None:
    started = threading.Event()
    served.policy.hold, served.policy.started = True, started.set
    robot = kind(getattr(served.address, wire))
    with ThreadPoolExecutor(1) as pool:
        planning = pool.submit(robot.plan, example_observation())
        assert started.wait(30)
        robot.close()
        with pytest.raises(ClientClosed):
            planning.result(30)
    robot.end()


@pytest.mark.parametrize("wire", WIRES)
async def test_a_cancelled_task_stays_cancelled(wire: str, served: Served) -> None:
    started, cancelled = threading.Event(), threading.Event()
    served.policy.hold, served.policy.started, served.policy.cancelled = True, started.set, cancelled.set
    async with AsyncPlanClient(getattr(served.address, wire)) as client:
        planning = asyncio.create_task(client.plan(example_observation()))
        assert await asyncio.to_thread(started.wait, 30)
        planning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await planning
        assert await asyncio.to_thread(cancelled.wait, 30)


def test_a_robot_that_waits_for_its_first_connection_ends_with_its_client() -> None:
    """The server accepts connections, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor(1) as pool:
        client = RobotClient(f"127.0.0.1:{silent.getsockname()[1]}", ROBOT)
        connecting = pool.submit(client.connect, 60.0)
        silent.settimeout(30)
        accepted, _ = silent.accept()
        client.close()
        with pytest.raises(ClientClosed, match="closed"):
            connecting.result(30)
        accepted.close()
