"""What the page's facts are read from: cards in a steady order and bounded, shares by name, the store's last word."""

from __future__ import annotations

import asyncio

import pytest

from tests.clock import ManualClock
from tests.edge.http.ui.pages import PageServed, page_served
from tests.planning.rig import example_request
from wavserve.core.errors import StoreUnavailable
from wavserve.edge.http.ui.sources import ASK_AFTER_S, MAX_CARDS, StoreHealth


class Redis:
    """Counts how often it is asked; then it says so to `health`."""

    def __init__(self, health: StoreHealth) -> None:
        self.num_asked = 0
        self.is_down = False
        self.go = asyncio.Event()
        self.go.set()
        self._health = health

    async def ask(self) -> None:
        self.num_asked += 1
        await self.go.wait()
        self._health.note("time", "failed" if self.is_down else "ok", 0.001)
        if self.is_down:
            raise StoreUnavailable("Redis did not answer")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


async def test_a_shared_store_is_asked_when_no_plan_has_asked_it_lately(clock: ManualClock) -> None:
    health = StoreHealth(clock)
    redis = Redis(health)
    health.follow("redis://cache:6379/0", redis.ask)
    health.refresh()
    await asyncio.sleep(0)
    assert redis.num_asked == 1
    health.refresh()
    clock.now += ASK_AFTER_S + 1
    health.note("commit", "ok", 0.002)
    health.refresh()
    await asyncio.sleep(0)
    assert redis.num_asked == 1
    clock.now += ASK_AFTER_S
    health.refresh()
    await asyncio.sleep(0)
    assert redis.num_asked == 2


async def test_a_store_that_is_down_is_asked_once_at_a_time_and_stays_told(clock: ManualClock) -> None:
    health = StoreHealth(clock)
    redis = Redis(health)
    redis.is_down = True
    redis.go.clear()
    health.follow("redis://cache:6379/0", redis.ask)
    for _ in range(3):
        health.refresh()
        await asyncio.sleep(0)
    assert redis.num_asked == 1
    redis.go.set()
    await asyncio.sleep(0.01)
    assert health.last is not None
    assert (health.last.outcome, health.last_ok) == ("failed", None)


async def test_a_store_of_this_process_is_not_asked(clock: ManualClock) -> None:
    health = StoreHealth(clock)
    redis = Redis(health)
    health.follow("", redis.ask)
    health.refresh()
    await asyncio.sleep(0)
    assert redis.num_asked == 0


async def planned(served: PageServed, num: int) -> None:
    for seed in range(num):
        request = example_request(served.rig.spec, seed)
        chunk = await served.rig.policy.plan(request)
        await served.rig.policy.end_session(chunk.session_id)  # the rig's store is small


async def test_cards_are_bounded_and_keep_their_order() -> None:
    async with page_served() as served:
        link = served.server.link("arm")
        await link.open()
        await planned(served, MAX_CARDS + 3)
        first = await served.page.live.now()
        assert len(first.cards) == MAX_CARDS
        assert first.cards[0][1] == "arm"
        names = [name for _, name in first.cards[1:]]
        assert names == sorted(names)
        page = (await served.client.get("/ui")).text
        assert f"The first {MAX_CARDS} are shown" in page


async def test_shares_have_the_names_of_robots() -> None:
    async with page_served() as served:
        link = served.server.link("arm")
        await link.open()
        await served.plan(link)
        served.server.gate.close()
        await link.send(link.observation(1))
        await served.server.gate.began.wait()
        asking = asyncio.create_task(served.rig.policy.plan(example_request(served.rig.spec)))
        await served.server.until(lambda: served.rig.policy.plans_in_flight == 2)
        shown = (await served.client.get("/ui")).text
        assert "<b>arm</b>: 1 under way" in shown
        assert "<b>a new session</b>: 1 under way" in shown
        served.server.gate.open()
        await asking
