"""Vital tasks: the process cannot do without them. When one ends by itself, the log and a callback are told.

Knows nothing of what a task does. The callback decides what follows from its death.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine

log = logging.getLogger(__name__)

OnDeath = Callable[[str], None]
"""Receives the name of a vital task that died."""


def ignore_death(name: str) -> None:
    """An `OnDeath` that does nothing; the log has the traceback already."""


class VitalTask:
    """A task that must live until its owner ends it with `stop` or `join`.

    Any other end is its death: a return, an error, or a cancellation by somebody else. The log gets the traceback.
    """

    def __init__(self, work: Coroutine[object, object, object], name: str, on_death: OnDeath = ignore_death) -> None:
        self._task = asyncio.create_task(work, name=name)
        self._on_death = on_death
        self._may_end = False
        self._task.add_done_callback(self._ended)

    def cancel(self) -> None:
        """Cancels the task, and does not wait until it has ended."""
        self._may_end = True
        self._task.cancel()

    async def stop(self) -> None:
        """Cancels the task and waits until it has ended."""
        self.cancel()
        await asyncio.wait([self._task])

    async def join(self) -> None:
        """Waits until the task ends by itself, which it may from now on. Raises its error."""
        self._may_end = True
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(self._task)

    def _ended(self, task: asyncio.Task[object]) -> None:
        error = None if task.cancelled() else task.exception()
        if self._may_end:
            return
        log.critical("%s died, and the service cannot go on without it", task.get_name(), exc_info=error)
        self._on_death(task.get_name())
