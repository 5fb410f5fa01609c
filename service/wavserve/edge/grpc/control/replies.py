"""The answers to a robot on its stream: chunks, drops and errors, each counted. Knows nothing of how a plan is made."""

from __future__ import annotations

from dataclasses import replace

from wavserve.core.control import ControlObservation, DropReason, ObservationDropped, ServerMessage, StreamError
from wavserve.core.messages import ActionChunk
from wavserve.edge.grpc.control.outbox import Outbox
from wavserve.edge.grpc.control.robots import Robot, without_iterations
from wavserve.edge.refusals import OnFailed, ignore_failure
from wavserve.edge.report import ErrorReport, report
from wavserve.system.control_metrics import ControlMetrics


class Replies:
    """The answers of one stream."""

    def __init__(
        self, outbox: Outbox, robot: Robot, metrics: ControlMetrics, on_failed: OnFailed = ignore_failure
    ) -> None:
        self._outbox = outbox
        self._robot = robot
        self._metrics = metrics
        self._on_failed = on_failed

    def send(self, message: ServerMessage) -> None:
        """Sends a message that is not counted. Raises Overloaded when the robot does not read."""
        self._outbox.put(message)

    async def has_space(self) -> None:
        """Waits until the robot has read what it was told. Raises Overloaded when it does not read."""
        await self._outbox.has_space()

    async def has_room(self) -> None:
        """Waits until another chunk may be made."""
        await self._outbox.has_room()

    def chunk(self, chunk: ActionChunk) -> None:
        """The plan of an observation."""
        self._metrics.observation("planned")
        self._robot.answered(chunk)
        wanted = chunk if self._robot.hello.want_iterations else without_iterations(chunk)
        self._outbox.put(wanted)

    def dropped(
        self, observation: ControlObservation, reason: DropReason, by_sequence: int = 0, retry_after_s: float = 0.0
    ) -> None:
        """No plan is made from the observation."""
        self._metrics.observation(reason.value)
        self._robot.dropped += 1
        dropped = ObservationDropped(observation.sequence, reason, by_sequence, observation.epoch or 0)
        self._outbox.put(replace(dropped, retry_after_ms=round(1e3 * retry_after_s)))

    def unanswered(self) -> None:
        """The stream ends before the observation is answered. It is counted, and the robot is not told."""
        self._metrics.observation("unanswered")

    def refused(self, error: Exception) -> None:
        """A message that is no observation was refused. The stream goes on."""
        self._on_failed(error, self._robot.hello.robot_id)
        self.failed(error)

    def failed(self, error: Exception, sequence: int | None = None) -> None:
        """A message was refused, or the plan of an observation failed. The stream goes on."""
        problem = report(error, "grpc")
        if sequence is not None:
            self._metrics.observation(problem.name)
        self._robot.errors += 1
        self._outbox.put(stream_error(problem, sequence, self._robot.epoch))


def stream_error(problem: ErrorReport, sequence: int | None = None, epoch: int = 0, fatal: bool = False) -> StreamError:
    """The report of a failure as a message of the stream."""
    return StreamError(
        name=problem.name,
        message=problem.detail,
        sequence=sequence,
        epoch=epoch,
        field=problem.field or "",
        expected=problem.expected or "",
        actual=problem.actual or "",
        retryable=problem.retryable,
        retry_after_ms=round(1e3 * (problem.retry_after_s or 0.0)),
        fatal=fatal,
        error_id=problem.error_id,
        facts={name: str(fact) for name, fact in problem.facts.items()},
    )
