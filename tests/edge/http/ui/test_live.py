"""One look for all viewers: computed only while somebody watches, bounded, and ended when the service stops."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.clock import ManualClock
from wavserve.core.errors import NotReady, Overloaded
from wavserve.edge.http.ui.live import BYE, MAX_BEHIND, Live, Look, Queue

TICK_S = 0.005


class Scene:
    """What is looked at. Each look differs in the piece `count`."""

    def __init__(self) -> None:
        self.num_looks = 0
        self.error: Exception | None = None

    async def look(self) -> Look:
        self.num_looks += 1
        if self.error is not None:
            raise self.error
        return Look([("k", "arm")], {"count": str(self.num_looks), "same": "x"})


def data_of(event: bytes | None) -> dict[str, Any]:
    assert event is not None
    kind, data, *_ = event.decode().split("\n")
    assert kind == "event: look"
    told: dict[str, Any] = json.loads(data.removeprefix("data: "))
    return told


async def next_of(queue: Queue) -> bytes | None:
    async with asyncio.timeout(10):
        return await queue.get()


async def test_nothing_is_looked_at_while_nobody_watches() -> None:
    scene = Scene()
    live = Live(scene.look, asyncio.Event(), TICK_S)
    await asyncio.sleep(5 * TICK_S)
    assert scene.num_looks == 0
    with live.watching() as queue:
        await next_of(queue)
        await next_of(queue)
    await asyncio.sleep(3 * TICK_S)  # the last tick may be under way
    before = scene.num_looks
    await asyncio.sleep(5 * TICK_S)
    assert scene.num_looks == before


async def test_a_viewer_gets_a_whole_look_and_then_what_changes() -> None:
    live = Live(Scene().look, asyncio.Event(), TICK_S)
    with live.watching() as first:
        whole, change = data_of(await next_of(first)), data_of(await next_of(first))
        assert set(whole["pieces"]) == {"count", "same"}
        assert set(change["pieces"]) == {"count"}
        assert whole["cards"] == change["cards"] == [["k", "arm"]]
        with live.watching() as second:
            assert set(data_of(await next_of(second))["pieces"]) == {"count", "same"}


async def test_all_viewers_share_one_look() -> None:
    scene = Scene()
    live = Live(scene.look, asyncio.Event(), TICK_S)
    with live.watching() as first, live.watching() as second:
        for _ in range(5):
            assert data_of(await next_of(first))["pieces"]["count"] == data_of(await next_of(second))["pieces"]["count"]
        assert scene.num_looks <= 5 + MAX_BEHIND


async def test_readers_of_the_page_share_a_look_until_it_is_old() -> None:
    scene, clock = Scene(), ManualClock()
    live = Live(scene.look, asyncio.Event(), interval_s=1.0, clock=clock)
    await asyncio.gather(*(live.now() for _ in range(20)))
    assert scene.num_looks == 1
    clock.now += 1.0
    await live.now()
    assert scene.num_looks == 2


async def test_there_are_only_so_many_viewers() -> None:
    live = Live(Scene().look, asyncio.Event(), TICK_S, max_viewers=1)
    with live.watching(), pytest.raises(Overloaded, match="1 others watch"), live.watching():
        pass
    with live.watching() as queue:
        assert await next_of(queue)
    assert live.num_viewers == 0


async def test_a_viewer_that_does_not_read_is_dropped_and_the_others_go_on() -> None:
    live = Live(Scene().look, asyncio.Event(), TICK_S)
    with live.watching() as reads, live.watching() as slow:
        for _ in range(MAX_BEHIND + 1):
            await next_of(reads)
        assert await next_of(slow) == BYE
        assert await next_of(slow) is None
        assert live.num_viewers == 1
        assert data_of(await next_of(reads))


async def test_a_service_that_stops_ends_every_viewer_and_takes_no_more() -> None:
    draining = asyncio.Event()
    live = Live(Scene().look, draining, interval_s=60.0)
    with live.watching() as queue:
        await next_of(queue)
        draining.set()
        assert await next_of(queue) == BYE
        assert await next_of(queue) is None
        with pytest.raises(NotReady), live.watching():
            pass


async def test_a_look_that_fails_ends_the_viewers_and_the_next_one_begins_anew() -> None:
    scene = Scene()
    live = Live(scene.look, asyncio.Event(), TICK_S)
    scene.error = ValueError("broken")
    with live.watching() as queue:
        assert await next_of(queue) == BYE
        assert await next_of(queue) is None
    scene.error = None
    with live.watching() as queue:
        assert data_of(await next_of(queue))
