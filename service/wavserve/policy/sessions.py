"""What a robot's session remembers, and where sessions are kept.

A session is an immutable record. A plan commits the next version by compare-and-set, and no lock is held during a plan.
The store is a small interface; this module has the one in memory.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol

import numpy as np

from wavserve.core.errors import Overloaded
from wavserve.core.messages import ActionChunk
from wavserve.core.types import Array, Gaussian


@dataclass(frozen=True, slots=True)
class FrameMemory:
    """The encoded frames that a plan is conditioned on: `frames [V, C, Fmem, H, W]`, oldest first.

    `steps` counts executed steps since the newest frame was kept.
    """

    frames: Array
    steps: int

    @classmethod
    def begin(cls, latents: Array, num_frames: int, threshold: int) -> FrameMemory:
        """The first observation `[V, C, H, W]` fills every frame; the next one after a step becomes a new frame."""
        return cls(np.repeat(latents[:, :, None], num_frames, axis=2), threshold - 1)

    def observe(self, latents: Array, executed_steps: int, threshold: int) -> FrameMemory:
        """The memory with one more observation `[V, C, H, W]`.

        When `threshold` steps were executed, the oldest frame is dropped and the newest becomes a memory frame. Before
        that, the observation replaces the newest frame.
        """
        steps = self.steps + executed_steps
        keep = steps >= threshold
        kept = self.frames[:, :, 1:] if keep else self.frames[:, :, :-1]
        return FrameMemory(np.concatenate([kept, latents[:, :, None]], axis=2), 0 if keep else steps)


@dataclass(frozen=True, slots=True)
class LastPlan:
    """The last plan that a session committed: where the next may begin, and what a retry is answered."""

    instruction: str
    """its digest"""
    control_step: int
    """at which the plan began"""
    video: Gaussian
    value: Gaussian
    content: str = ""
    """digest of the request"""
    actions: Array | None = None
    """`[T, A]` as answered: those of the chunk. None in a record of an older version"""
    chunk: ActionChunk | None = None
    """None in a replayed session, which answers no retry"""


@dataclass(frozen=True, slots=True)
class Session:
    """One robot's memory under one policy. `version` counts commits; 0: not stored yet."""

    id: str
    policy_digest: str
    version: int = 0
    memory: FrameMemory | None = None
    last: LastPlan | None = None
    last_sequence: int = -1
    """a reset keeps it, so a request from before the reset is refused as stale"""
    epoch: int = 0
    """raised by each stream and each reset of a stream, in a commit of its own; 0: no stream has used the session"""
    robot_id: str = ""
    """the robot whose stream opened the session; empty: none"""
    committed_s: float = 0.0
    """seconds since 1970 at the last commit"""

    @property
    def num_plans(self) -> int:
        """Commits that began no epoch: plans, and resets where no stream has used the session."""
        return self.version - self.epoch

    @staticmethod
    def fresh(policy_digest: str) -> Session:
        """A new session with an unguessable id."""
        return Session(secrets.token_urlsafe(18), policy_digest)

    def forget(self) -> Session:
        """The session without memory: its next observation is a first one."""
        return replace(self, memory=None, last=None)


class CommitResult(Enum):
    """What became of a commit."""

    COMMITTED = "committed"
    """the session is stored; the deadline had not passed"""
    CHANGED = "changed"
    """nothing is stored: the stored version is another one"""
    TOO_LATE = "too_late"
    """nothing is stored: the deadline had passed"""
    UNKNOWN = "unknown"
    """the store did not say. The session may be stored, now or until the deadline; `load` tells"""


class SessionStore(Protocol):
    """Where sessions are kept. An expired session is unknown."""

    async def load(self, session_id: str) -> Session | None:
        """Raises StoreUnavailable when the store does not answer."""
        ...

    async def peek(self, session_id: str) -> Session | None:
        """As `load`, for an onlooker: it is no use of the session, which expires as if nobody had looked."""
        ...

    async def commit(self, session: Session, deadline: float = math.inf) -> CommitResult:
        """Stores the session under its next version, if the stored version is `session.version` and `deadline` has not
        passed. `deadline`: absolute, in seconds of the monotonic clock.

        The store judges both at the moment at which it stores. It may take time and may be cancelled; then its outcome
        is unknown. Raises Overloaded when there is no room for a new session.

        A new session of a robot takes the place of the robot's older one, which no stream has any more.
        """
        ...

    async def ensure_room(self, robot_id: str = "") -> None:
        """Raises Overloaded when there is no room for a new session; StoreUnavailable. `robot_id`: as in `Session`."""
        ...

    async def ensure_writable(self) -> None:
        """Raises Overloaded while the store is known to take no commit, also of an old session; StoreUnavailable."""
        ...

    async def end(self, session_id: str) -> None:
        """Removes a session. Does nothing for an unknown one."""
        ...


class MemorySessions:
    """Sessions in this process. They expire `ttl_s` after their last use.

    A full store evicts the session that was used least recently among those with a single plan. It refuses new
    sessions when every session has more than one. A robot has one session at a time: a robot whose program starts again
    and again locks nobody out.
    """

    def __init__(self, ttl_s: float, max_sessions: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._ttl_s = ttl_s
        self._max_sessions = max_sessions
        self._clock = clock
        self._sessions: dict[str, tuple[float, Session]] = {}  # ordered by expiry: each use moves a session to the end

    def __len__(self) -> int:
        self._expire()
        return len(self._sessions)

    async def load(self, session_id: str) -> Session | None:
        self._expire()
        entry = self._sessions.get(session_id)
        return None if entry is None else self._keep(entry[1])

    async def peek(self, session_id: str) -> Session | None:
        self._expire()
        entry = self._sessions.get(session_id)
        return None if entry is None else entry[1]

    async def commit(self, session: Session, deadline: float = math.inf) -> CommitResult:
        self._expire()
        entry = self._sessions.get(session.id)
        if (0 if entry is None else entry[1].version) != session.version:
            return CommitResult.CHANGED
        if self._clock() > deadline:
            return CommitResult.TOO_LATE
        if entry is None:
            await self.ensure_room(session.robot_id)
            for older in self._of_robot(session.robot_id):
                del self._sessions[older]
            if len(self._sessions) >= self._max_sessions:
                del self._sessions[self._evictable()[0]]
        self._keep(replace(session, version=session.version + 1))
        return CommitResult.COMMITTED

    async def ensure_room(self, robot_id: str = "") -> None:
        self._expire()
        if len(self._sessions) >= self._max_sessions and not (self._of_robot(robot_id) or self._evictable()):
            oldest, _ = next(iter(self._sessions.values()))
            message, retry_s = f"all {self._max_sessions} sessions are in use", max(oldest - self._clock(), 0.1)
            raise Overloaded(message, retry_s, reason="sessions")

    async def ensure_writable(self) -> None:
        pass

    async def end(self, session_id: str) -> None:
        self._sessions.pop(session_id, None)

    def _evictable(self) -> list[str]:
        """Sessions with at most one plan, least recently used first."""
        return [session_id for session_id, (_, session) in self._sessions.items() if session.num_plans <= 1]

    def _of_robot(self, robot_id: str) -> list[str]:
        """The sessions that streams of a robot opened; none for the empty id."""
        stored = self._sessions.items()
        return [session_id for session_id, (_, session) in stored if robot_id and session.robot_id == robot_id]

    def _keep(self, session: Session) -> Session:
        self._sessions.pop(session.id, None)
        self._sessions[session.id] = (self._clock() + self._ttl_s, session)
        return session

    def _expire(self) -> None:
        now = self._clock()
        while self._sessions:
            session_id, (expires, _) = next(iter(self._sessions.items()))
            if expires > now:
                return
            del self._sessions[session_id]
