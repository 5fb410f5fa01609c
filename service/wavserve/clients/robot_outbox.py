"""What waits to be written to a stream: the newest observation, and the other messages.

It also counts the steps since the observation that the server's memory has. Knows no link, and is not thread-safe.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from wavserve.clients.robot import RobotObservation, RobotOptions
from wavserve.core.control import (
    ClientMessage,
    ControlObservation,
    DropReason,
    ExecutionReport,
    ObservationDropped,
    Ping,
    StreamError,
)
from wavserve.core.errors import InvalidRequest, WavserveError, error_name
from wavserve.core.messages import EncodedImage
from wavserve.core.rtc import RtcRequest
from wavserve.core.tracing import NO_SPAN, Span

_MAX_REPORTS = 16
"""Reports that wait while nothing can be written. The oldest one beyond them is lost."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """An observation in the slot, or being encoded."""

    sequence: int
    epoch: int
    observation: RobotObservation
    arrived_at: float
    """on the core's clock"""
    span: Span = NO_SPAN

    def dropped(self, reason: DropReason, by_sequence: int = 0) -> ObservationDropped:
        return ObservationDropped(self.sequence, reason, by_sequence, self.epoch)

    def refused(self, error: WavserveError) -> StreamError:
        """The error as the server would have sent it."""
        name, message = error_name(type(error)), error.message
        refusal = StreamError(name=name, message=message, sequence=self.sequence, epoch=self.epoch)
        if isinstance(error, InvalidRequest):
            return replace(refusal, field=error.field, expected=error.expected, actual=error.actual)
        return refusal


def _no_span(sequence: int) -> Span:
    return NO_SPAN


class Observations:
    """Numbers observations and counts what was executed since the one that the server's memory has."""

    def __init__(self) -> None:
        self.slot: Waiting | None = None
        self.asked: int | None = None
        """sequence of the latest observation, until it has an answer"""
        self._next_sequence = 0
        self._sent: dict[int, int] = {}  # sequence -> `executed_steps` of those without an answer, oldest first
        self._accepted_at: int | None = None  # `executed_steps` of the latest one that the memory has

    def put(
        self, observation: RobotObservation, epoch: int, now: float, begin: Callable[[int], Span] = _no_span
    ) -> tuple[int, Waiting | None]:
        """Puts the newest observation into the slot. Returns its sequence number, and the one that gives way.

        `begin`: begins the span of a sequence number.
        """
        older, sequence = self.slot, self._next_sequence
        self._next_sequence += 1
        self.asked = sequence
        self.slot = Waiting(sequence, epoch, observation, now, begin(sequence))
        return sequence, older

    def clear_slot(self) -> Waiting | None:
        """Takes the waiting observation out."""
        waiting, self.slot = self.slot, None
        return waiting

    def sent(self, waiting: Waiting) -> int:
        """Notes that an observation is written. Returns the steps executed since the previous accepted one.

        Of those without an answer the oldest is being planned, and counts as accepted.
        """
        total = waiting.observation.executed_steps
        since = next(iter(self._sent.values()), self._accepted_at)
        self._sent[waiting.sequence] = total
        return 0 if since is None else max(total - since, 0)

    def answered(self, sequence: int) -> None:
        """An observation got its answer."""
        self._sent.pop(sequence, None)
        if sequence == self.asked:
            self.asked = None

    def accepted(self, sequence: int) -> None:
        """An observation got a chunk: the memory has it."""
        self._accepted_at = self._sent.get(sequence, self._accepted_at)
        self.answered(sequence)
        self._sent = {each: at for each, at in self._sent.items() if each > sequence}

    def resumed(self, next_sequence: int) -> None:
        """The memory goes on. The server's next sequence number tells which observations it has."""
        for each in [each for each in self._sent if each < next_sequence]:
            self.accepted(each)

    def forgotten(self) -> None:
        """The memory is fresh: no observation is in it."""
        self._accepted_at = None

    def begin_epoch(self, next_sequence: int) -> None:
        """No observation of before gets an answer any more."""
        self._next_sequence = max(self._next_sequence, next_sequence)
        self._sent.clear()
        self.asked = None


class Controls:
    """A queue with one ping and few reports, so that it stays short on a stream that stands still."""

    def __init__(self) -> None:
        self._messages: deque[ClientMessage] = deque()

    def put(self, message: ClientMessage) -> None:
        """Adds a message. A second ping is not added."""
        same = [each for each in self._messages if type(each) is type(message)]
        if isinstance(message, Ping) and same:
            return
        if isinstance(message, ExecutionReport) and len(same) >= _MAX_REPORTS:
            self._messages.remove(same[0])
        self._messages.append(message)

    def take(self) -> ClientMessage | None:
        """Takes the oldest message out."""
        return self._messages.popleft() if self._messages else None

    def clear(self) -> None:
        """The stream has ended: nothing of it is written any more."""
        self._messages.clear()


def observation_message(
    waiting: Waiting, images: tuple[EncodedImage, ...], executed_steps: int, options: RobotOptions, sent_ns: int
) -> ControlObservation:
    """An observation as it is written. `executed_steps`: since the one that the memory has."""
    seen = waiting.observation
    return ControlObservation(
        images=images,
        state=seen.state,
        instruction=seen.instruction,
        sequence=waiting.sequence,
        epoch=waiting.epoch,
        control_step=seen.control_step,
        executed_steps=executed_steps,
        options=options.planner,
        deadline_ms=options.deadline_ms,
        seed=seen.seed,
        rtc=_rtc(seen, executed_steps, options.rtc),
        sent_mono_ns=sent_ns,
        traceparent=waiting.span.traceparent,
    )


def _rtc(seen: RobotObservation, executed: int, wish: RtcRequest | None) -> RtcRequest | None:
    """The server takes no delay above what is left, or above what was executed since the previous observation."""
    if seen.left_over is None:
        return wish
    rows = np.asarray(seen.left_over, np.float32)
    delay = min(seen.inference_delay, len(rows), executed)
    return replace(wish or RtcRequest(), inference_delay=delay, prev_chunk_left_over=rows)
