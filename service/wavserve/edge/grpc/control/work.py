"""The working task of a stream: one plan at a time, from the newest observation, and resets between them."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from wavserve.core.control import ControlObservation, DropReason, ResetAck, ResetStream
from wavserve.core.errors import DeadlineExceeded, NotReady, Overloaded, StaleEpoch, UnknownSession, WavserveError
from wavserve.core.tracing import TraceContext
from wavserve.edge.frontend import Frontend
from wavserve.edge.grpc.control.intake import Intake
from wavserve.edge.grpc.control.mailbox import Mailbox, Received
from wavserve.edge.grpc.control.replies import Replies
from wavserve.edge.grpc.control.robots import Robot
from wavserve.edge.trail import Caller

_FATAL = (StaleEpoch, UnknownSession)
"""Another stream has the session, or it has expired: no observation of this stream can be planned any more."""


class Work:
    """Plans and resets of one stream."""

    def __init__(
        self,
        frontend: Frontend,
        robot: Robot,
        intake: Intake,
        replies: Replies,
        draining: asyncio.Event,
    ) -> None:
        """`draining`: set when the service stops."""
        self.mailbox = Mailbox()
        self._frontend = frontend
        self._robot = robot
        self._intake = intake
        self._replies = replies
        self._draining = draining
        self._resets_left = 0
        self._planning: asyncio.Task[None] | None = None

    @property
    def resetting(self) -> bool:
        """Whether a reset is under way: what arrives now is from before it."""
        return self._resets_left > 0

    def reset(self, reset: ResetStream) -> None:
        """Drops what waits and what runs, and has the epoch raised. Raises Overloaded when too many resets wait."""
        waiting = self.mailbox.put_reset(reset)
        self._resets_left += 1
        if waiting is not None:
            self._replies.dropped(waiting.observation, DropReason.RESET)
        if self._planning is not None:
            self._planning.cancel()

    def refuse(
        self, error: WavserveError, received_ns: int, sequence: int, observation: ControlObservation | None = None
    ) -> None:
        """Answers an observation that cannot be planned. `observation` None: it could not be read."""
        if observation is not None:
            observation = replace(observation, session_id=self._intake.session_id)
        self._frontend.refused(error, received_ns, self._caller(observation), observation)
        self._replies.failed(error, sequence)

    async def run(self) -> None:
        """Works until the mailbox is closed and empty. Raises what ends the stream."""
        while True:
            await self._replies.has_room()
            match await self.mailbox.take():
                case None:
                    return
                case ResetStream() as reset:
                    await self._reset(reset)
                case Received() as received:
                    await self._plan_unless_reset(received)

    async def _reset(self, reset: ResetStream) -> None:
        """A reset that fails ends the stream: the robot must not go on with memory that it gave up."""
        opened = await self._frontend.reset_epoch(self._intake.session_id, self._intake.epoch)
        self._intake.begin(opened)
        self._robot.epoch = opened.epoch
        self._resets_left -= 1
        self._replies.send(ResetAck(reset.id, opened.epoch, self._intake.next_sequence))

    async def _plan_unless_reset(self, received: Received) -> None:
        """Plans in a task of its own, which a reset cancels."""
        planning = self._planning = asyncio.create_task(self._plan(received))
        try:
            await asyncio.wait((planning,))
        except asyncio.CancelledError:
            planning.cancel()
            await asyncio.gather(planning, return_exceptions=True)
            if planning.cancelled():
                self._replies.unanswered()
            raise
        finally:
            self._planning = None
        if planning.cancelled():
            self._replies.dropped(received.observation, DropReason.RESET)
        else:
            planning.result()

    async def _plan(self, received: Received) -> None:
        """One plan, answered, dropped or failed. Raises the errors that end the stream."""
        observation, num_bytes = received.observation, received.num_bytes
        admitted = self._frontend.admit(
            (), received.received_ns, self._caller(observation), num_bytes, received.deadline, observation
        )
        try:
            with admitted as arrival:
                arrival.permit.take_bytes(num_bytes)
                chunk = await self._frontend.plan(observation, arrival)
        except _FATAL:
            self._replies.unanswered()
            raise
        except Overloaded as error:
            self._replies.dropped(observation, DropReason.OVERLOADED, retry_after_s=error.retry_after_s)
        except DeadlineExceeded as error:
            if error.missed is None:
                self._replies.dropped(observation, DropReason.TOO_OLD)
            else:
                self._replies.failed(error, observation.sequence)
        except NotReady as error:
            if self._draining.is_set():  # it was being decoded, or the drain ended its plan
                self._replies.dropped(observation, DropReason.DRAINING)
            else:
                self._replies.failed(error, observation.sequence)
        except Exception as error:  # noqa: BLE001  # every observation is answered; `report` logs the unexpected
            self._replies.failed(error, observation.sequence)
        else:
            self._intake.sent(chunk)
            self._replies.chunk(chunk)

    def _caller(self, observation: ControlObservation | None) -> Caller:
        parent = None if observation is None else TraceContext.parse([observation.traceparent])
        return Caller(self._robot.peer, "control", self._robot.hello.robot_id, parent)
