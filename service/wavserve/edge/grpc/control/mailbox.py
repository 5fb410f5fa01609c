"""The work that waits on one stream: resets, and the newest observation, which replaces an older one."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from wavserve.core.control import ControlObservation, ResetStream
from wavserve.core.errors import Overloaded

MAX_RESETS = 16


@dataclass(frozen=True, slots=True)
class Received:
    """An observation that was checked, except for its images. `received_ns`: when it came (monotonic)."""

    observation: ControlObservation
    received_ns: int
    num_bytes: int

    @property
    def deadline(self) -> float | None:
        """Absolute, in seconds of the monotonic clock."""
        after_ms = self.observation.deadline_ms
        return None if after_ms is None else self.received_ns / 1e9 + after_ms / 1e3


class Mailbox:
    """One slot for an observation. Resets come first."""

    def __init__(self) -> None:
        self._observation: Received | None = None
        self._resets: deque[ResetStream] = deque()
        self._closed = False
        self._changed = asyncio.Event()

    def put(self, received: Received) -> Received | None:
        """Puts the newest observation into the slot. Returns the one that gives way to it."""
        older, self._observation = self._observation, received
        self._changed.set()
        return older

    def put_reset(self, reset: ResetStream) -> Received | None:
        """Adds a reset. Returns the observation that waited. Raises Overloaded when too many resets wait."""
        if len(self._resets) >= MAX_RESETS:
            raise Overloaded(f"{MAX_RESETS} resets wait on this stream")
        self._resets.append(reset)
        self._changed.set()
        return self.clear()

    def clear(self) -> Received | None:
        """Takes the waiting observation out."""
        waiting, self._observation = self._observation, None
        return waiting

    def close(self) -> None:
        """No more comes. `take` gives what waits, then None."""
        self._closed = True
        self._changed.set()

    async def take(self) -> ResetStream | Received | None:
        """Waits for the next work; None when the mailbox is closed and empty."""
        while True:
            if self._resets:
                return self._resets.popleft()
            if self._observation is not None:
                return self.clear()
            if self._closed:
                return None
            self._changed.clear()
            await self._changed.wait()
