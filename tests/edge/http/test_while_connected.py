"""Work for a client that may disconnect, without a network."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from wavserve.core.errors import Cancelled, TooLarge
from wavserve.edge.http.while_connected import while_connected


async def for_ever() -> None:
    await asyncio.Event().wait()


async def silent() -> dict[str, Any]:
    await asyncio.Event().wait()
    return {}


async def disconnected() -> dict[str, Any]:
    return {"type": "http.disconnect"}


async def too_large() -> dict[str, Any]:
    raise TooLarge("body", "at most 5 bytes", "more")


async def answer() -> int:
    return 3


async def test_a_client_that_leaves_ends_the_work_and_one_that_stays_gets_its_result() -> None:
    assert await while_connected(silent, answer()) == 3
    with pytest.raises(Cancelled, match="disconnected"):
        await while_connected(disconnected, for_ever())


async def test_a_body_that_is_refused_meanwhile_is_no_disconnect() -> None:
    with pytest.raises(TooLarge, match="at most 5 bytes"):
        await while_connected(too_large, for_ever())
