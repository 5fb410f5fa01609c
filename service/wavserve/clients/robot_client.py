"""The robot's client of the control stream, for programs without an event loop: `async_robot_client` on a thread."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from wavserve.clients.async_robot_client import AsyncRobotClient
from wavserve.clients.gateways import Targets
from wavserve.clients.loop_thread import LoopThread
from wavserve.clients.robot import Event, RobotDescription, RobotObservation, RobotOptions
from wavserve.clients.robot_view import RobotView
from wavserve.core.control import ExecutionReport, Welcome


class RobotClient(RobotView):
    """A robot's stream to a server (`host:port`, no TLS) or to several, as in `AsyncRobotClient`. A context manager.

    All network work is on a thread of its own. Only `connect` and `close` wait; any thread may call everything else.
    """

    def __init__(
        self,
        target: Targets,
        robot: RobotDescription,
        options: RobotOptions | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        """`on_event` is called on the network's thread for each event; `poll` then gives none."""
        self._thread = LoopThread("wavserve-robot")
        try:
            self._client = self._thread.run(_made(target, robot, options, on_event))
        except BaseException:
            self._thread.end(_nothing)
            raise
        super().__init__(self._client.core)

    def connect(self, timeout_s: float = 10.0) -> Welcome:
        """Opens the stream; see `AsyncRobotClient.connect`."""
        return self._thread.run(self._client.connect(timeout_s))

    def observe(self, observation: RobotObservation) -> int | None:
        """Hands over an observation; see `AsyncRobotClient.observe`. The newest wins."""
        return self._client.observe(observation)

    def report(self, report: ExecutionReport) -> None:
        """Tells the server and its onlookers what the robot executed. Raises InvalidRequest."""
        self._client.report(report)

    def reset(self) -> None:
        """Makes the server forget the frame memory. No chunk from before is given any more; `ResetAck` follows."""
        self._client.reset()

    def close(self) -> None:
        """Ends the stream in order, within a few seconds. Harmless when called again."""
        self._thread.end(self._client.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


async def _made(
    target: Targets, robot: RobotDescription, options: RobotOptions | None, on_event: Callable[[Event], None] | None
) -> AsyncRobotClient:
    return AsyncRobotClient(target, robot, options, on_event)


async def _nothing() -> None:
    """There is nothing to end."""
