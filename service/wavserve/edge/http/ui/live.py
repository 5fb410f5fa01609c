"""One look a second for all viewers of the live page: who watches, and what each is sent.

While nobody watches nothing is computed. Knows no markup and no fact.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from wavserve.core.errors import NotReady, Overloaded
from wavserve.core.types import Clock

log = logging.getLogger(__name__)

INTERVAL_S = 1.0
MAX_VIEWERS = 16
MAX_BEHIND = 3
"""Looks that a viewer may be behind. One that is further behind is dropped."""
HELLO = b"retry: 3000\n\n"
"""Milliseconds after which a browser connects again."""
BYE = b"event: bye\ndata: {}\n\n"


@dataclass(frozen=True, slots=True)
class Look:
    """The page at one moment, in pieces."""

    cards: Sequence[tuple[str, str]]
    """key and name of each robot, in order"""
    pieces: Mapping[str, str]
    """markup by the id of the element that has it"""


Queue = asyncio.Queue[bytes | None]
"""What a viewer is to be sent; None: the end."""


@dataclass(slots=True, eq=False)
class _Viewer:
    queue: Queue = field(default_factory=lambda: asyncio.Queue(MAX_BEHIND))
    is_new: bool = True


class Live:
    """The viewers of one page. `look` makes a look; it is called once for all of them."""

    def __init__(
        self,
        look: Callable[[], Awaitable[Look]],
        draining: asyncio.Event,
        interval_s: float = INTERVAL_S,
        max_viewers: int = MAX_VIEWERS,
        clock: Clock = time.monotonic,
    ) -> None:
        """`draining`: set when the service stops, which ends every viewer's stream."""
        self._look = look
        self._draining = draining
        self._interval_s = interval_s
        self._max_viewers = max_viewers
        self._clock = clock
        self._viewers: set[_Viewer] = set()
        self._telling: asyncio.Task[None] | None = None
        self._latest: tuple[float, Look] | None = None
        self._looking = asyncio.Lock()

    @property
    def num_viewers(self) -> int:
        return len(self._viewers)

    async def now(self) -> Look:
        """A look that is not older than the interval: no number of readers makes it work harder."""
        async with self._looking:
            if self._latest is None or self._clock() - self._latest[0] >= self._interval_s:
                began = self._clock()
                self._latest = began, await self._look()
            return self._latest[1]

    @contextlib.contextmanager
    def watching(self) -> Iterator[Queue]:
        """The events of one more viewer, until the block ends: first a whole look, then what changes.

        Raises Overloaded when there are too many viewers, and NotReady when the service stops.
        """
        if self._draining.is_set():
            raise NotReady("the gateway stops")
        if len(self._viewers) >= self._max_viewers:
            raise Overloaded(f"{self._max_viewers} others watch this page, and no more are taken", 10.0)
        viewer = _Viewer()
        self._viewers.add(viewer)
        if self._telling is None:
            self._telling = asyncio.create_task(self._tell_all())
        try:
            yield viewer.queue
        finally:
            self._viewers.discard(viewer)

    async def _tell_all(self) -> None:
        shown: Mapping[str, str] = {}
        try:
            while self._viewers and not self._draining.is_set():
                look = await self.now()
                self._tell(look, shown)
                shown = look.pieces
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._interval_s):
                        await self._draining.wait()
        except Exception:
            log.exception("the live page could not be made")
        finally:
            self._telling = None
            for viewer in list(self._viewers):
                self._end(viewer)

    def _tell(self, look: Look, shown: Mapping[str, str]) -> None:
        changed = {key: html for key, html in look.pieces.items() if shown.get(key) != html}
        update = _event(look.cards, changed)
        whole = _event(look.cards, look.pieces) if any(viewer.is_new for viewer in self._viewers) else update
        for viewer in list(self._viewers):
            try:
                viewer.queue.put_nowait(whole if viewer.is_new else update)
                viewer.is_new = False
            except asyncio.QueueFull:
                log.info("a viewer of the live page is dropped, because it reads too slowly")
                self._end(viewer)

    def _end(self, viewer: _Viewer) -> None:
        """What waits for the viewer is dropped: it gets a whole look when it comes back."""
        self._viewers.discard(viewer)
        while not viewer.queue.empty():
            viewer.queue.get_nowait()
        viewer.queue.put_nowait(BYE)
        viewer.queue.put_nowait(None)


def _event(cards: Sequence[tuple[str, str]], pieces: Mapping[str, str]) -> bytes:
    return b"event: look\ndata: " + orjson.dumps({"cards": cards, "pieces": pieces}) + b"\n\n"
