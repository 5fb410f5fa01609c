"""Decides which observations of a stream may wait for a plan, by their epoch, order and chunk. It checks no image.

A wrong observation never replaces a good one that waits. Knows no plan and no wire.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

from wavserve.core.control import ControlObservation
from wavserve.core.errors import InvalidRequest, SequenceConflict, shown
from wavserve.core.messages import MAX_INT64, ActionChunk
from wavserve.core.spec import PolicySpec
from wavserve.edge import validate
from wavserve.policy.epochs import OpenedSession

MAX_SEQUENCE = MAX_INT64 - 1
"""The number after it must be one as well: a stream says which it takes next."""
KEPT_CHUNKS = 8
"""The latest chunks of a stream. A robot that executes another one has lost track."""


class Intake:
    """The order of one stream: its session, epoch and sequence, and the chunks that it sent."""

    def __init__(self, spec: PolicySpec, opened: OpenedSession, instruction: str) -> None:
        self._spec = spec
        self.session_id = opened.session_id
        self.epoch = opened.epoch
        self.next_sequence = opened.next_sequence
        """the smallest sequence number that is taken"""
        self.instruction = instruction
        self._chunks: OrderedDict[str, int] = OrderedDict()  # id -> number of actions

    def is_stale(self, observation: ControlObservation) -> bool:
        """Whether an observation is from before a reset. Raises InvalidRequest for an epoch that never was."""
        epoch = observation.epoch or 0
        if not 1 <= epoch <= self.epoch:
            raise InvalidRequest("epoch", f"{self.epoch}, of the latest Welcome or ResetAck", epoch)
        return epoch != self.epoch

    def check(self, observation: ControlObservation) -> ControlObservation:
        """The observation with the session and the task of the stream. Raises InvalidRequest or a child of it."""
        if observation.sequence > MAX_SEQUENCE:
            raise InvalidRequest("sequence", f"at most {MAX_SEQUENCE}", observation.sequence)
        if observation.sequence < self.next_sequence:
            raise SequenceConflict("sequence", f"at least {self.next_sequence}", observation.sequence)
        self.next_sequence = observation.sequence + 1
        self._check_chunk(observation)
        instruction = observation.instruction or self.instruction
        complete = replace(observation, session_id=self.session_id, instruction=instruction)
        validate.check(complete, self._spec)
        self.instruction = instruction
        return complete

    def sent(self, chunk: ActionChunk) -> None:
        """Remembers a chunk that the robot may execute."""
        self._chunks[chunk.chunk_id] = len(chunk.actions)
        if len(self._chunks) > KEPT_CHUNKS:
            self._chunks.popitem(last=False)

    def begin(self, opened: OpenedSession) -> None:
        """A reset has begun a new epoch. No chunk of before may be executed."""
        self.epoch = opened.epoch
        self.next_sequence = max(self.next_sequence, opened.next_sequence)
        self._chunks.clear()

    def _check_chunk(self, observation: ControlObservation) -> None:
        chunk_id, index = observation.prev_chunk_id, observation.prev_chunk_next_index
        if chunk_id and chunk_id not in self._chunks:
            expected = f"empty, or one of the last {KEPT_CHUNKS} chunks of this stream"
            raise InvalidRequest("prev_chunk_id", expected, shown(chunk_id))
        most = self._chunks.get(chunk_id, 0)
        if index > most:
            raise InvalidRequest("prev_chunk_next_index", f"0 to {most}", index)
        if not 0 <= observation.sent_mono_ns <= MAX_INT64:
            raise InvalidRequest("sent_mono_ns", f"0 to {MAX_INT64}", observation.sent_mono_ns)
