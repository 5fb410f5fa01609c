"""A robot's stream while a real Redis is away: with `fresh` it goes on, without it every failure names Redis."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from loadtest.redis_server import RedisServer, redis_server
from tests.edge.grpc.control.links import Link, serving_rig
from tests.planning.rig import RigOptions
from wavserve.app.session_store import open_store
from wavserve.app.settings_sources import Given, load_settings
from wavserve.core.control import StreamError
from wavserve.core.messages import ActionChunk


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


async def planned(link: Link, sequence: int) -> ActionChunk:
    await link.send(link.observation(sequence, executed_steps=2))
    return await link.receive(ActionChunk)


def given(redis: RedisServer, when_down: str) -> list[Given]:
    return [Given("sessions.url", redis.url, "test"), Given("sessions.when_down", when_down, "test")]


async def test_streams_go_on_while_redis_is_away_and_when_it_is_back(redis: RedisServer) -> None:
    opened = await open_store(load_settings(None, {}, given(redis, "fresh")).settings, lambda *_: None)
    async with serving_rig(RigOptions(store=lambda _: opened.store)) as (server, _):
        links = [server.link(robot) for robot in ("arm-1", "arm-2")]
        for link in links:
            await link.open()
            await planned(link, 0)
        redis.stop()
        for sequence, fresh in ((1, True), (2, False)):
            chunks = [await planned(link, sequence) for link in links]
            assert [(chunk.epoch, chunk.fresh_memory) for chunk in chunks] == [(1, fresh)] * 2
        redis.start()
        chunks = [await planned(link, 3) for link in links]
        assert [(chunk.epoch, chunk.fresh_memory) for chunk in chunks] == [(1, False)] * 2
        for chunk in chunks:
            assert await opened.store.peek(chunk.session_id) is not None
    await opened.close()


async def test_without_fresh_an_observation_fails_and_the_stream_stays(redis: RedisServer) -> None:
    opened = await open_store(load_settings(None, {}, given(redis, "fail")).settings, lambda *_: None)
    async with serving_rig(RigOptions(store=lambda _: opened.store)) as (server, _):
        link = server.link()
        await link.open()
        await planned(link, 0)
        redis.stop()
        await link.send(link.observation(1))
        error = await link.receive(StreamError)
        assert (error.name, error.retryable, error.fatal) == ("store-unavailable", True, False)
        assert "Redis (sessions.url) did not answer" in error.message
    await opened.close()
