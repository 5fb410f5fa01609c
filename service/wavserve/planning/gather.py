"""Several calls of one plan at once: all of them finish, or the first failure cancels the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar, overload

T = TypeVar("T")
U = TypeVar("U")


@overload
async def gather(first: Coroutine[Any, Any, T], second: Coroutine[Any, Any, U], /) -> tuple[T, U]: ...


@overload
async def gather(*parts: Coroutine[Any, Any, T]) -> tuple[T, ...]: ...


async def gather(*parts: Coroutine[Any, Any, Any]) -> tuple[Any, ...]:
    """The results of all parts, in their order. Raises the first failure once the other parts are cancelled.

    A cancelled caller gets CancelledError even when a part failed. `asyncio.TaskGroup` loses that cancellation while
    it stops the failed group, and marks callers as cancelled that were not (Python 3.11 and 3.12).
    """
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        if tasks:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    failed = (task.exception() for task in tasks if not task.cancelled())
    if (failure := next(filter(None, failed), None)) is not None:
        raise failure
    return tuple(task.result() for task in tasks)
