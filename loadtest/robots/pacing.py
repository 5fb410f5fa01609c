"""When robots may send requests: closed loop, or open loop at a fixed rate over all robots of a phase.

A robot waits for a slot before every request. In a closed loop it may always send, so a slow service receives fewer
requests. In an open loop the rate does not depend on the answers: a phase has more robots than the service can answer
at once, and any free robot takes the next slot.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Protocol


class Pacing(Protocol):
    """Decides when a robot may send its next request."""

    @property
    def open_loop(self) -> bool:
        """Whether the rate is fixed and the robots wait for slots."""
        ...

    async def slot(self) -> bool:
        """Waits for the next slot. Returns False when the phase is over and has no more slots."""
        ...


class ClosedLoop:
    """A robot may send a request at any time."""

    open_loop = False

    async def slot(self) -> bool:
        return True


class OpenLoop:
    """`per_s` slots a second, evenly spaced. A slot for which no robot is free is counted and dropped."""

    open_loop = True

    def __init__(self, per_s: float) -> None:
        self.used = 0
        self.unused = 0
        self.per_s = per_s
        self._waiting: deque[asyncio.Future[bool]] = deque()
        self._over = False

    async def slot(self) -> bool:
        if self._over:
            return False
        granted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(granted)
        return await granted

    async def issue(self, until: float) -> None:
        """Issues slots until a time of the monotonic clock, then returns False to every robot that still waits."""
        began, due = time.monotonic(), 0
        while True:
            now = min(time.monotonic(), until)
            while due <= (now - began) * self.per_s:  # catches up on slots that a late wake-up missed
                self._issue_one()
                due += 1
            if now == until:
                break
            await asyncio.sleep(max(began + due / self.per_s - time.monotonic(), 0.0))
        self._over = True
        for granted in self._waiting:
            granted.set_result(False)
        self._waiting.clear()

    def _issue_one(self) -> None:
        if not self._waiting:
            self.unused += 1
            return
        self.used += 1
        self._waiting.popleft().set_result(True)
