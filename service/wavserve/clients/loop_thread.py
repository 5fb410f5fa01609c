"""An event loop on a thread of its own, for the clients whose caller has none."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from wavserve.core.errors import ClientClosed

Answer = TypeVar("Answer")

_END_S = 2.0
_LAST_S = 5.0
"""How long the last work may take. A thread that stands still must not keep its program from ending."""


class LoopThread:
    """Runs coroutines for other threads until `end`."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._lock = threading.Lock()
        self._ended = False
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """Waits for the work's result. Raises ClientClosed after `end`."""
        with self._lock:
            if self._ended:
                work.close()
                raise ClientClosed("this client is closed; make another one")
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result()

    def end(self, last: Callable[[], Coroutine[Any, Any, None]], last_s: float = _LAST_S) -> None:
        """Runs `last`, which ends the work that is under way, and ends the thread, within a few seconds.

        Later calls do nothing. Raises what `last` raises, once the thread has ended.
        """
        with self._lock:
            if self._ended:
                return
            self._ended = True
            future = asyncio.run_coroutine_threadsafe(last(), self._loop)
        try:
            with contextlib.suppress(TimeoutError):
                future.result(last_s)
        finally:
            self._stop(last_s)

    def _stop(self, rest_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(_rest(), self._loop).result(rest_s)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_END_S)
        if not self._thread.is_alive():
            self._loop.close()


async def _rest() -> None:
    """Lets the other tasks end."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others, timeout=_END_S)
