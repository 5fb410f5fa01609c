"""Closes parts side by side. Knows no part."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable


async def close_all(*closings: Awaitable[object]) -> None:
    """Each part is closed, also when another one cannot be. Raises the first error once all have ended.

    Parts that are closed one after the other belong on an ExitStack, which does the same.
    """
    results = await asyncio.gather(*closings, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
