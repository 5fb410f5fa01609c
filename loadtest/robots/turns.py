"""Who may ask when: as they like, or at a told rate over all robots together, however slow the answers are.

Robots take a turn before every ask. At a told rate the offered load does not give way to a slow service, as it does
where every robot waits for its answer: there are more robots than answers, and whoever is free takes the next turn.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Protocol


class Turns(Protocol):
    """Asked before every ask."""

    @property
    def told(self) -> bool:
        """Whether somebody else than the robot says when it asks."""
        ...

    async def take(self) -> bool:
        """Waits for a turn; False when there will be none any more."""
        ...


class FreeTurns:
    """Whenever a robot likes."""

    told = False

    async def take(self) -> bool:
        return True


class ToldTurns:
    """`per_s` turns a second, evenly spaced; one that no robot is free to take is counted and gone."""

    told = True

    def __init__(self, per_s: float) -> None:
        self.given = 0
        self.untaken = 0
        self.per_s = per_s
        self._waiting: deque[asyncio.Future[bool]] = deque()
        self._over = False

    async def take(self) -> bool:
        if self._over:
            return False
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        return await turn

    async def give(self, until: float) -> None:
        """Gives turns until a time of the monotonic clock, then sends the waiting home."""
        began, due = time.monotonic(), 0
        while True:
            now = min(time.monotonic(), until)
            while due <= (now - began) * self.per_s:  # catches up on turns that a late wake-up missed
                self._next()
                due += 1
            if now == until:
                break
            await asyncio.sleep(max(began + due / self.per_s - time.monotonic(), 0.0))
        self._over = True
        for turn in self._waiting:
            turn.set_result(False)
        self._waiting.clear()

    def _next(self) -> None:
        if not self._waiting:
            self.untaken += 1
            return
        self.given += 1
        self._waiting.popleft().set_result(True)
