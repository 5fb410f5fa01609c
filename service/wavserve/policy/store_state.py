"""Whether the shared store serves, as its calls found it. The log says it once when that changes.

Knows no store and no session.
"""

from __future__ import annotations

import logging
import time

from wavserve.core.types import Clock

log = logging.getLogger(__name__)


class StoreState:
    """One store. A call that writes tells more than one that reads: a store may answer and take no record."""

    def __init__(self, meanwhile: str = "plans fail", clock: Clock = time.monotonic) -> None:
        """`meanwhile`: what robots get while the store does not serve."""
        self._meanwhile = meanwhile
        self._clock = clock
        self._failing_since: float | None = None
        self._a_write_failed = False

    def served(self, wrote: bool) -> None:
        """A call succeeded. `wrote`: it stored something."""
        if self._failing_since is not None and (wrote or not self._a_write_failed):
            log.info("Redis (sessions.url) serves again, after %.1f s", self._clock() - self._failing_since)
            self._failing_since, self._a_write_failed = None, False

    def failed(self, why: str, writing: bool) -> None:
        """A call failed. `writing`: it was to store something."""
        self._a_write_failed |= writing
        if self._failing_since is None:
            self._failing_since = self._clock()
            log.warning("%s. Until it serves again, %s", why, self._meanwhile)
