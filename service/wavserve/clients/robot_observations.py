"""A robot's observations from `observe` to their fate: sequence numbers, the slot, spans, and the event of each.

It also counts the steps since the observation that the server's memory has. Knows no link, and is not thread-safe.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from wavserve.clients.robot import Event, RobotObservation
from wavserve.clients.robot_spans import RobotSpans
from wavserve.core.control import DropReason, ObservationDropped, StreamError
from wavserve.core.errors import InvalidRequest, WavserveError, error_name
from wavserve.core.messages import ActionChunk
from wavserve.core.tracing import NO_SPAN, Span


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


class Observations:
    """All observations of a robot. Each one ends in one event, unless its stream ends once it has left the slot."""

    def __init__(self, spans: RobotSpans, tell: Callable[[Event], None]) -> None:
        """`tell` takes the events."""
        self._spans, self._tell = spans, tell
        self.slot: Waiting | None = None
        self.asked: int | None = None
        """sequence of the latest observation, until it has an answer"""
        self._next_sequence = 0
        self._sent: dict[int, int] = {}  # sequence -> `executed_steps` of those without an answer, oldest first
        self._accepted_at: int | None = None  # `executed_steps` of the latest one that the memory has

    def put(self, observation: RobotObservation, epoch: int, now: float) -> int:
        """Puts the newest observation into the slot, in place of an older one, and returns its sequence number."""
        older, sequence = self.slot, self._next_sequence
        self._next_sequence += 1
        self.asked = sequence
        self.slot = Waiting(sequence, epoch, observation, now, self._spans.begin(sequence))
        if older is not None:
            self.dropped(older.dropped(DropReason.SUPERSEDED, sequence))
        return sequence

    def clear_slot(self) -> Waiting | None:
        """Takes the waiting observation out."""
        waiting, self.slot = self.slot, None
        return waiting

    def drop_slot(self, reason: DropReason) -> None:
        """The waiting observation is not sent."""
        waiting = self.clear_slot()
        if waiting is not None:
            self.dropped(waiting.dropped(reason))

    def sent(self, waiting: Waiting) -> int:
        """Notes that an observation is written. Returns the steps executed since the previous accepted one.

        Of those without an answer the oldest is being planned, and counts as accepted.
        """
        total = waiting.observation.executed_steps
        since = next(iter(self._sent.values()), self._accepted_at)
        self._sent[waiting.sequence] = total
        return 0 if since is None else max(total - since, 0)

    def planned(self, chunk: ActionChunk) -> None:
        """An observation got a chunk: the memory has it."""
        self._accepted(chunk.sequence)
        self._spans.planned(chunk)
        self._tell(chunk)

    def dropped(self, dropped: ObservationDropped) -> None:
        """No plan is made of an observation."""
        self._answered(dropped.sequence, dropped.reason.value)
        self._tell(dropped)

    def refused(self, refusal: StreamError) -> None:
        """An error, of an observation or of another message."""
        if refusal.sequence is not None:
            self._answered(refusal.sequence, refusal.name)
        self._tell(refusal)

    def resumed(self, next_sequence: int) -> None:
        """The memory goes on. The server's next sequence number tells which observations it has."""
        for each in [each for each in self._sent if each < next_sequence]:
            self._accepted(each)

    def forgotten(self) -> None:
        """The memory is fresh: no observation is in it."""
        self._accepted_at = None

    def begin_epoch(self, next_sequence: int) -> None:
        """No observation of before gets an answer any more."""
        self.cut()
        self._next_sequence = max(self._next_sequence, next_sequence)
        self._sent.clear()

    def cut(self) -> None:
        """The stream ends. Whether the memory has what was sent, the next stream tells."""
        self.drop_slot(DropReason.RESET)
        self._spans.end_all()
        self.asked = None

    def _accepted(self, sequence: int) -> None:
        self._accepted_at = self._sent.pop(sequence, self._accepted_at)
        self._settled(sequence)
        self._sent = {each: at for each, at in self._sent.items() if each > sequence}

    def _answered(self, sequence: int, outcome: str) -> None:
        self._sent.pop(sequence, None)
        self._settled(sequence)
        self._spans.end(sequence, outcome)

    def _settled(self, sequence: int) -> None:
        if sequence == self.asked:
            self.asked = None
