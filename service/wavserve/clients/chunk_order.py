"""The order of an epoch's chunks: which one answers a newer observation, and which of its actions are out of date.

It counts consumed actions, never time. It knows no robot and no motion.
"""

from __future__ import annotations

from enum import Enum

from wavserve.core.messages import ActionChunk


class Refusal(Enum):
    """Why the player takes no action from a chunk."""

    OTHER_SESSION = "other_session"
    OTHER_EPOCH = "other_epoch"
    OLDER = "older"
    """it answers an older observation than a chunk that was offered, or one from before `hold_from`"""
    DUPLICATE = "duplicate"
    AHEAD = "ahead"
    """it begins after the next step"""
    DIMENSION = "dimension"
    NOT_FINITE = "not_finite"
    RATE = "rate"
    """its steps have another duration"""
    EXPIRED = "expired"
    """the robot has executed steps since the observation, and the chunk is no longer valid or has no action left"""
    NO_POSE = "no_pose"
    """`max_step` is set and there is no last command: call `hold_from` with the measured pose first"""


class ChunkOrder:
    """The chunks of one epoch of a session, as they are offered."""

    def __init__(self, session_id: str, epoch: int) -> None:
        self._session_id, self._epoch = session_id, epoch
        self._sequence, self._chunk_id = -1, ""  # of the latest chunk that was taken
        self._oldest_step = 0  # chunks of observations before it are out of date
        self._consumed: list[int] = []  # the steps that executed an action since the latest chunk's observation

    def go_on(self, session_id: str, epoch: int) -> None:
        """The session goes on in a new epoch. What was executed counts on."""
        self._session_id, self._epoch = session_id, epoch

    @property
    def num_consumed(self) -> int:
        """Actions executed since the observation of the latest chunk: so many of the chunk are out of date."""
        return len(self._consumed)

    def consumed(self, step: int) -> None:
        """An action was executed at this step."""
        self._consumed.append(step)

    def refuse_before(self, step: int) -> None:
        """Chunks of observations before this step are out of date."""
        self._oldest_step = max(self._oldest_step, step)

    def take(self, chunk: ActionChunk, next_step: int) -> Refusal | None:
        """Takes a chunk that answers a newer observation of this epoch. The reason when it does not, else None."""
        refusal = self._judge(chunk, next_step)
        if refusal is None:
            self._sequence, self._chunk_id = chunk.sequence, chunk.chunk_id
            self._oldest_step = chunk.first_control_step
            self._consumed = [step for step in self._consumed if step >= chunk.first_control_step]
        return refusal

    def _judge(self, chunk: ActionChunk, next_step: int) -> Refusal | None:
        if chunk.session_id != self._session_id:
            return Refusal.OTHER_SESSION
        if chunk.epoch != self._epoch:
            return Refusal.OTHER_EPOCH
        if chunk.sequence == self._sequence and chunk.chunk_id == self._chunk_id:
            return Refusal.DUPLICATE
        if chunk.sequence <= self._sequence or chunk.first_control_step < self._oldest_step:
            return Refusal.OLDER
        return Refusal.AHEAD if chunk.first_control_step > next_step else None
