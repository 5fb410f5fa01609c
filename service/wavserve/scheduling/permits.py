"""Places for plans: those that run, and those kept for requests that are still being read.

A request gets its permit when its headers are known. The plan takes the place over when it starts. A request that is
read too slowly loses its permit, so that it cannot keep the place from others. Knows nothing of requests and plans.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator

from wavserve.core.errors import Overloaded
from wavserve.scheduling.shares import MIN_RETRY_S

PERMIT_S = 1.0
"""How long a place is kept for a request that is still being read."""


class Permit:
    """A place kept for one request. The default keeps nothing."""

    def __init__(self, *on_release: Callable[[], object]) -> None:
        """`on_release`: called once, when the place is released."""
        self._on_release = on_release

    def release(self) -> None:
        """Releases the place. A second call does nothing."""
        callbacks, self._on_release = self._on_release, ()
        for callback in callbacks:
            callback()


class Permits:
    """The places of one policy, at most `max_plans`."""

    def __init__(self, max_plans: int, num_running: Callable[[], int], soonest_s: Callable[[], float]) -> None:
        """`num_running`: plans that run now; `soonest_s`: seconds until the first of them ends."""
        self._max_plans = max_plans
        self._num_running = num_running
        self._soonest_s = soonest_s
        self._kept: set[Permit] = set()

    @contextlib.contextmanager
    def keep(self, *on_release: Callable[[], object]) -> Iterator[Permit]:
        """Keeps a place for PERMIT_S at most, until the block ends or a plan takes the place over."""
        permit = Permit(*on_release, lambda: self._kept.discard(permit))
        self._kept.add(permit)
        expiry = asyncio.get_running_loop().call_later(PERMIT_S, permit.release)
        try:
            yield permit
        finally:
            expiry.cancel()
            permit.release()

    def take_over(self, permit: Permit) -> None:
        """A plan starts in the place of its permit. Raises Overloaded when the permit is gone and no place is free."""
        self._kept.discard(permit)
        self.check_room()

    def check_room(self) -> None:
        """Raises Overloaded when every place is taken."""
        taken = self._num_running() + len(self._kept)
        if taken >= self._max_plans:
            message = f"the limit of {self._max_plans} plans and pending requests is reached"
            raise Overloaded(message, max(self._soonest_s(), MIN_RETRY_S))
