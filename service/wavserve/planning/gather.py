"""Work that belongs together: all of it is done, or the rest is stopped.

Used wherever a plan waits for several calls at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar, overload

T = TypeVar("T")
U = TypeVar("U")


@overload
async def together(first: Coroutine[Any, Any, T], second: Coroutine[Any, Any, U], /) -> tuple[T, U]: ...


@overload
async def together(*parts: Coroutine[Any, Any, T]) -> tuple[T, ...]: ...


async def together(*parts: Coroutine[Any, Any, Any]) -> tuple[Any, ...]:
    """What all parts return, in their order. Raises what one failed with, once the others are stopped.

    A caller that is cancelled is told so, whatever failed; a task group would swallow that while it ends what failed,
    and leaves its caller marked as cancelled where it was not (Python 3.11 and 3.12).
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
