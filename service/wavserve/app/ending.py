"""Why and when a service ends: a signal asks for it, or a part died without which it is of no use.

Part of the composition root. Knows nothing of how the service stops.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

from wavserve.core.errors import NotReady
from wavserve.system.processes import STOP_SIGNALS

T = TypeVar("T")

log = logging.getLogger(__name__)

CLOSE_WITHIN_S = 20.0
"""How long a service whose part died may take to close; a part that hangs would keep it for ever."""


class Ending:
    """Begins with one of STOP_SIGNALS or with the death of a vital task. `died` names the first task that died.

    A signal that is ignored already, as SIGHUP below `nohup`, stays ignored.
    """

    def __init__(self, close_within_s: float = CLOSE_WITHIN_S) -> None:
        self._close_within_s = close_within_s
        self.died: str | None = None
        self._event, self._death = asyncio.Event(), asyncio.Event()
        for signum in STOP_SIGNALS:
            if signal.getsignal(signum) is not signal.SIG_IGN:
                asyncio.get_running_loop().add_signal_handler(signum, self._event.set)

    def ignore_signals(self) -> None:
        """Ignores STOP_SIGNALS until the process exits: one that comes so late must not change the exit code."""
        for signum in STOP_SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(signum)
            signal.signal(signum, signal.SIG_IGN)

    def on_death(self, name: str) -> None:
        """An `OnDeath`: ends the service at once."""
        self.died = self.died or name
        self._death.set()
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()

    async def unless_ended(self, work: Coroutine[Any, Any, T]) -> T | None:
        """The result of `work`. When the service ends first, cancels it, waits for its clean-up and returns None."""
        working, stopping = asyncio.create_task(work), asyncio.create_task(self.wait())
        await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if working.done():
            return working.result()
        working.cancel()
        await asyncio.wait([working])
        return None

    async def close(self, closing: Coroutine[Any, Any, None]) -> None:
        """Closes the service's parts. A part that died, also meanwhile, may hang: after `close_within_s` the process
        exits with code 1."""
        task, death = asyncio.create_task(closing), asyncio.create_task(self._death.wait())
        await asyncio.wait([task, death], return_when=asyncio.FIRST_COMPLETED)
        death.cancel()
        await asyncio.wait([task], timeout=self._close_within_s)
        if not task.done():
            log.critical("the service did not close within %.0f s: exiting", self._close_within_s)
            logging.shutdown()
            os._exit(1)  # threads that hang would hold up every other exit
        task.result()

    def check(self) -> None:
        """Raises NotReady when the service ends because a part of it died."""
        if self.died is not None:
            raise NotReady(f"{self.died} died, and the service cannot go on without it; the log has the reason")
