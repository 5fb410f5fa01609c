"""The spans of a robot's observations, from `observe` to the answer. Knows no link, and is not thread-safe."""

from __future__ import annotations

from wavserve.core.messages import ActionChunk
from wavserve.core.tracing import Attributes, Span, Tracer


class RobotSpans:
    """The spans of observations without an answer, by sequence number."""

    def __init__(self, tracer: Tracer, robot_id: str) -> None:
        self._tracer = tracer
        self._robot_id = robot_id
        self._open: dict[int, Span] = {}

    def begin(self, sequence: int) -> Span:
        """The span of a new observation."""
        facts: Attributes = {"wavserve.robot": self._robot_id, "wavserve.sequence": sequence}
        span = self._tracer.begin("robot.plan", attributes=facts)
        if span.recorded:
            self._open[sequence] = span
        return span

    def end(self, sequence: int, outcome: str) -> None:
        """An observation got its answer: `planned`, the value of a `DropReason`, or an error's public name."""
        if (span := self._open.pop(sequence, None)) is not None:
            span.set({"wavserve.outcome": outcome})
            span.end()

    def planned(self, chunk: ActionChunk) -> None:
        """An observation got a chunk."""
        if (span := self._open.get(chunk.sequence)) is not None:
            span.set({"wavserve.chunk": chunk.chunk_id})
            self.end(chunk.sequence, "planned")

    def end_all(self) -> None:
        """No observation of before gets an answer any more."""
        for sequence in list(self._open):
            self.end(sequence, "unanswered")
