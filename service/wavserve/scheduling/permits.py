"""Counts the places and bytes of plans that run and of requests that are still being read.

A request gets its permit when its headers are known. The plan takes the place over when it starts. A request that is
read too slowly loses its place, so that it cannot keep it from others. Its bytes count from when they arrive until the
request is answered. Knows nothing of requests and plans.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Iterator

from wavserve.core.errors import Overloaded, RefusalReason
from wavserve.scheduling.shares import MIN_RETRY_S

PERMIT_S = 1.0
"""How long a place is kept for a request that is still being read."""


def _take_nothing(num_bytes: int) -> None:
    pass


class Permit:
    """A place kept for one request. The default keeps nothing."""

    def __init__(self, *on_release: Callable[[], object], take_bytes: Callable[[int], None] = _take_nothing) -> None:
        """`on_release`: called once, when the place is released."""
        self._on_release = on_release
        self.take_bytes = take_bytes
        """counts bytes that have arrived; raises Overloaded when the requests under way hold too many"""

    def release(self) -> None:
        """Releases the place. A second call does nothing."""
        callbacks, self._on_release = self._on_release, ()
        for callback in callbacks:
            callback()


class Permits:
    """The places of one policy, at most `max_plans`, and the bytes of its requests, at most `max_bytes`."""

    def __init__(
        self,
        max_plans: int,
        num_running: Callable[[], int],
        soonest_s: Callable[[], float],
        max_bytes: float = math.inf,
    ) -> None:
        """`num_running`: plans that run now; `soonest_s`: seconds until the first of them ends."""
        self._max_plans = max_plans
        self._num_running = num_running
        self._soonest_s = soonest_s
        self._max_bytes = max_bytes
        self._held_bytes = 0
        self._kept: set[Permit] = set()

    @contextlib.contextmanager
    def keep(
        self, *on_release: Callable[[], object], on_refused: Callable[[RefusalReason], None] = lambda reason: None
    ) -> Iterator[Permit]:
        """Keeps a place for PERMIT_S at most, until the block ends or a plan takes the place over.

        Bytes that the permit takes are held until the block ends. `on_refused`: called when it cannot take more.
        """
        taken = 0

        def take_bytes(num_bytes: int) -> None:
            nonlocal taken
            try:
                self.check_bytes(num_bytes, taken)
            except Overloaded as error:
                on_refused(error.reason)
                raise
            taken += num_bytes
            self._held_bytes += num_bytes

        permit = Permit(*on_release, lambda: self._kept.discard(permit), take_bytes=take_bytes)
        self._kept.add(permit)
        expiry = asyncio.get_running_loop().call_later(PERMIT_S, permit.release)
        try:
            yield permit
        finally:
            expiry.cancel()
            permit.release()
            self._held_bytes -= taken

    def take_over(self, permit: Permit) -> None:
        """A plan starts in the place of its permit. Raises Overloaded when the permit is gone and no place is free."""
        self._kept.discard(permit)
        self.check_room()

    def check_room(self) -> None:
        """Raises Overloaded when every place is taken."""
        taken = self._num_running() + len(self._kept)
        if taken >= self._max_plans:
            raise self._full(f"the limit of {self._max_plans} plans and pending requests is reached", "places")

    def check_bytes(self, num_bytes: int, own: int = 0) -> None:
        """Raises Overloaded when `num_bytes` more are too many. A request that is alone, with `own` bytes, may have any
        number."""
        if self._held_bytes > own and self._held_bytes + num_bytes > self._max_bytes:
            raise self._full(f"requests under way hold {self._held_bytes} of {self._max_bytes} bytes", "bytes")

    def _full(self, message: str, reason: RefusalReason) -> Overloaded:
        return Overloaded(message, max(self._soonest_s(), MIN_RETRY_S), reason=reason)
