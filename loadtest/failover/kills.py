"""The kills of a failover run: what dies, when, and how long until it is back. A seed decides what and when."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import get_args

from loadtest.failover.site import Kind, Site
from wavserve.policy.commits import uninterrupted

KINDS: tuple[Kind, ...] = get_args(Kind)
PAUSE_S = (0.5, 3.0)
"""Shortest and longest time between a repair and the next kill."""


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill: `at`, and `back` when all parts worked again, in seconds of the monotonic clock."""

    kind: Kind
    what: str
    at: float
    back: float


def kinds(num_kills: int, draw: random.Random) -> Iterator[Kind]:
    """What dies, in a random order in which each kind comes equally often."""
    for number in range(num_kills):
        if number % len(KINDS) == 0:
            of_round = draw.sample(KINDS, len(KINDS))
        yield of_round[number % len(KINDS)]


class Killer:
    """Kills parts of a site one after another. `kills` grows with each repair."""

    def __init__(self, site: Site, seed: int, say: Callable[[str], None] = lambda text: None) -> None:
        """`say`: is told of each repair."""
        self.kills: list[Kill] = []
        self._site = site
        self._draw = random.Random(seed)
        self._say = say

    async def kill(self, num_kills: int) -> None:
        """Raises RuntimeError or TimeoutError when a part does not come back."""
        for kind in kinds(num_kills, self._draw):
            await asyncio.sleep(self._draw.uniform(*PAUSE_S))
            at = time.monotonic()
            what, restore = await uninterrupted(asyncio.to_thread(self._site.kill, kind, self._draw))
            await uninterrupted(asyncio.to_thread(restore))  # a part that starts must not outlive the run
            self.kills.append(Kill(kind, what, at, time.monotonic()))
            self._say(f"{what}: back after {time.monotonic() - at:.1f} s")
