"""One robot's stream after its handshake: it sorts messages, and ends when either side or the service does.

The reading task computes nothing, so it answers pings at once, also while a plan runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic_ns
from typing import Any

from wavserve.core.control import (
    Bye,
    ClientMessage,
    ControlObservation,
    DropReason,
    ExecutionReport,
    GoAway,
    Hello,
    Ping,
    Pong,
    ResetStream,
)
from wavserve.core.errors import InvalidRequest, TooLarge, WavserveError
from wavserve.edge.grpc.control.intake import Intake
from wavserve.edge.grpc.control.mailbox import Received
from wavserve.edge.grpc.control.replies import Replies
from wavserve.edge.grpc.control.reports import Reports
from wavserve.edge.grpc.control.robots import Robot
from wavserve.edge.grpc.control.work import Work
from wavserve.policy.epochs import RESUME_WITHIN_S
from wavserve.wire.bounds import sequence_of
from wavserve.wire.control import parse_client_message

Read = Callable[[], Awaitable[bytes | None]]
"""The next message of the client; None: it sends no more."""


def parse(raw: bytes, max_bytes: int) -> ClientMessage:
    """One message. Raises TooLarge and InvalidRequest."""
    if len(raw) > max_bytes:
        raise TooLarge("message", f"at most {max_bytes} bytes", f"{len(raw)} bytes")
    return parse_client_message(raw)


class Stream:
    """A stream whose session is open."""

    def __init__(
        self, robot: Robot, intake: Intake, work: Work, replies: Replies, reports: Reports, max_bytes: int
    ) -> None:
        self._robot = robot
        self._intake = intake
        self._work = work
        self._replies = replies
        self._reports = reports
        self._max_bytes = max_bytes
        self._draining = False

    async def run(self, read: Read, writing: asyncio.Task[None], draining: asyncio.Event) -> None:
        """Serves the stream until the client says Bye, or its last observation is answered.

        Raises StaleEpoch when another stream takes the session over, and any other error that ends the stream.
        """
        reading = asyncio.create_task(self._read_all(read))
        working = asyncio.create_task(self._work.run())
        drain = asyncio.create_task(draining.wait())
        own = {reading, working, drain, asyncio.create_task(self._robot.until_taken_over())}
        waited: set[asyncio.Task[Any]] = {*own, writing}
        try:
            while not working.done():
                done, waited = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                if reading in done and not reading.result():
                    return
                if drain in done:
                    self._go_away()
                if reading in done or drain in done:
                    self._work.mailbox.close()
        finally:
            for task in own:
                task.cancel()
            await asyncio.gather(*own, return_exceptions=True)
            if self._work.mailbox.clear() is not None:
                self._replies.unanswered()

    async def _read_all(self, read: Read) -> bool:
        """Sorts messages until the client sends no more. False: it said Bye, and waits for nothing.

        A robot that sends faster than it is answered waits for its answers.
        """
        while (raw := await read()) is not None:
            await self._replies.has_space()
            try:
                message = parse(raw, self._max_bytes)
            except WavserveError as error:
                self._refuse(error, sequence_of(raw))
                continue
            match message:
                case Bye():
                    return False
                case Ping():
                    now = monotonic_ns()
                    self._replies.send(Pong(message.id, message.client_mono_ns, now, now))
                case ControlObservation():
                    self._observe(message, len(raw))
                case ExecutionReport():
                    self._report(message)
                case ResetStream():
                    self._work.reset(message)
                case Hello():
                    raise InvalidRequest("message", "hello once, as the first message", "another hello")
        return True

    def _refuse(self, error: WavserveError, sequence: int | None) -> None:
        """Answers a message that is none. `sequence`: of an observation; None: it is another message."""
        if sequence is None:
            self._replies.refused(error)
            return
        self._robot.observations += 1
        self._work.refuse(error, monotonic_ns(), sequence)

    def _observe(self, observation: ControlObservation, num_bytes: int) -> None:
        """Puts an observation into the mailbox, or says why it is not planned."""
        received_ns = monotonic_ns()
        self._robot.observations += 1
        try:
            if self._draining:
                self._replies.dropped(observation, DropReason.DRAINING)
                return
            if self._intake.is_stale(observation) or self._work.resetting:
                self._replies.dropped(observation, DropReason.RESET)
                return
            complete = self._intake.check(observation)
        except WavserveError as error:
            self._work.refuse(error, received_ns, observation.sequence, observation)
            return
        self._robot.instruction = complete.instruction
        older = self._work.mailbox.put(Received(complete, received_ns, num_bytes))
        if older is not None:
            self._replies.dropped(older.observation, DropReason.SUPERSEDED, observation.sequence)

    def _report(self, report: ExecutionReport) -> None:
        try:
            self._reports.take(report)
        except WavserveError as error:
            self._replies.refused(error)

    def _go_away(self) -> None:
        """The service stops: no further plan begins here; the one that runs may still be answered."""
        self._draining = True
        self._replies.send(GoAway(round(1e3 * RESUME_WITHIN_S), "the server stops"))
        waiting = self._work.mailbox.clear()
        if waiting is not None:
            self._replies.dropped(waiting.observation, DropReason.DRAINING)
