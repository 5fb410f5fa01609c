"""Robots that plan on a service for as long as somebody looks, over streams and without one."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

import numpy as np

from tests.service.rig import observation
from wavserve.clients.plan_client import PlanClient
from wavserve.clients.robot import RobotDescription, RobotObservation, RobotOptions
from wavserve.clients.robot_client import RobotClient
from wavserve.core.control import ExecutionReport, HoldReason
from wavserve.core.errors import WavserveError
from wavserve.core.messages import PolicyInfo
from wavserve.core.resize import Pixels

TASK = "pick up the alphabet soup and place it in the basket"


@dataclass(frozen=True)
class FakeRobot:
    """What a robot is called, what it does, and how soon it wants each plan."""

    name: str
    task: str = TASK
    deadline_ms: int = 60_000
    hold: HoldReason | None = None


@contextmanager
def planning(grpc: str, robots: Sequence[FakeRobot], every_s: float = 4.0) -> Iterator[None]:
    """Each robot has a stream and asks for a plan `every_s`, until the block ends."""
    stop = threading.Event()
    with ExitStack() as stack, PlanClient(grpc) as client:
        policy = client.policy()
        for robot in robots:
            thread = threading.Thread(target=_run, args=(grpc, policy, robot, every_s, stop))
            thread.start()
            stack.callback(thread.join)
        stack.callback(stop.set)
        yield


def plan_without_stream(grpc: str) -> None:
    """One plan of a client that has no stream."""
    with PlanClient(grpc) as client:
        client.plan(observation())


def ask_for_too_much(grpc: str) -> None:
    """A plan that no machine makes in its time, so it is refused."""
    with PlanClient(grpc) as client, suppress(WavserveError):
        client.plan(observation(deadline_ms=1))


def _run(grpc: str, policy: PolicyInfo, robot: FakeRobot, every_s: float, stop: threading.Event) -> None:
    orientations = {camera.name: camera.orientation for camera in policy.cameras}
    described = RobotDescription.as_declared(policy, robot.name, orientations)
    options = RobotOptions(deadline_ms=robot.deadline_ms, planner={"num_iterations": 4, "num_video_samples": 4})
    with RobotClient(grpc, described, options) as client:
        client.connect(30.0)
        step = 0
        while not stop.is_set():
            client.observe(
                RobotObservation(
                    images={camera.name: _picture(step, camera.height, camera.width) for camera in policy.cameras},
                    state=tuple(0.0 for _ in policy.state.names),
                    control_step=step,
                    executed_steps=0,
                    instruction=robot.task,
                )
            )
            client.report(ExecutionReport(executed_from_step=step, executed_to_step=step + 1, hold_reason=robot.hold))
            step += 10
            stop.wait(every_s)


def _picture(step: int, height: int, width: int) -> Pixels:
    """A soft wave that moves."""
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [np.sin((rows + columns * factor + 8 * step) / 30) for factor in (0.5, 1.0, 2.0)]
    pixels: Pixels = (127 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)
    return pixels
