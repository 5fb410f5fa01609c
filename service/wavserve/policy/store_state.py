"""Whether the shared store serves, as its calls found it. The log says it once when that changes.

Knows no store and no session.
"""

from __future__ import annotations

import logging
import time

from wavserve.core.types import Clock

log = logging.getLogger(__name__)

FULL_S = 1.0
"""How long nobody tries to store after a store was full."""


class StoreState:
    """One store. A call that writes tells more than one that reads: a store may answer and take no record."""

    def __init__(self, meanwhile: str = "plans fail", clock: Clock = time.monotonic) -> None:
        """`meanwhile`: what robots get while the store does not serve."""
        self._meanwhile = meanwhile
        self._clock = clock
        self._failing_since: float | None = None
        self._a_write_failed = False
        self._full_since: float | None = None
        self._full_until = 0.0

    @property
    def is_full(self) -> bool:
        """Whether the last call that was to store something was refused for want of room."""
        return self._full_since is not None

    def begin_try(self) -> bool:
        """Whether the caller shall try if a full store has room again: nobody has for FULL_S."""
        if self._clock() < self._full_until:
            return False
        self._full_until = self._clock() + FULL_S
        return True

    def served(self, wrote: bool) -> None:
        """A call succeeded. `wrote`: it stored something."""
        if wrote or not self._a_write_failed:
            self._end_failure()
        if wrote and self._full_since is not None:
            log.info("Redis (sessions.url) has room again, after %.1f s", self._clock() - self._full_since)
            self._full_since = None

    def filled(self) -> None:
        """A call stored nothing, for want of room."""
        self._end_failure()
        self._full_until = self._clock() + FULL_S
        if self._full_since is None:
            self._full_since = self._clock()
            log.warning("Redis (sessions.url) is full (maxmemory). Until it has room, plans are refused")

    def failed(self, why: str, writing: bool) -> None:
        """A call failed. `writing`: it was to store something."""
        self._a_write_failed |= writing
        self._full_since = None  # nobody knows any more
        if self._failing_since is None:
            self._failing_since = self._clock()
            log.warning("%s. Until it serves again, %s", why, self._meanwhile)

    def _end_failure(self) -> None:
        if self._failing_since is not None:
            log.info("Redis (sessions.url) serves again, after %.1f s", self._clock() - self._failing_since)
            self._failing_since, self._a_write_failed = None, False
