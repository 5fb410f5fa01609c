"""Connections to a real Redis that ended while they were idle cost no call, and no commit counts twice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace

import pytest

from loadtest.redis_server import RedisServer, redis_server
from tests.relay import relayed
from wavserve.app.session_store import OpenedStore, open_store
from wavserve.app.settings_sources import Given, load_settings
from wavserve.policy.sessions import CommitResult, Session

NUM_CALLS = 12


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


async def opened_at(port: int) -> OpenedStore:
    given = [Given("sessions.url", f"redis://127.0.0.1:{port}/0", "test")]
    return await open_store(load_settings(None, {}, given).settings, lambda *_: None)


def calls(opened: OpenedStore) -> list[Callable[[], Awaitable[object]]]:
    """Each kind of call, so often that each of them needs several connections at once."""
    session = Session.fresh("digest")
    kinds = [
        lambda: opened.store.load(session.id),
        lambda: opened.store.peek(session.id),
        opened.store.ensure_room,
        lambda: opened.store.commit(Session.fresh("digest")),
    ]
    return [kind for kind in kinds for _ in range(NUM_CALLS)]


async def all_at_once(opened: OpenedStore) -> list[object]:
    return await asyncio.gather(*(call() for call in calls(opened)))


async def test_connections_that_a_restart_of_redis_closed_cost_no_call(redis: RedisServer) -> None:
    opened = await opened_at(redis.port)
    before = await all_at_once(opened)
    redis.stop()
    redis.start()
    assert await all_at_once(opened) == before
    assert before[-1] is CommitResult.COMMITTED
    await opened.close()


async def test_connections_that_were_reset_cost_no_call(redis: RedisServer) -> None:
    async with relayed(redis.port) as (relay, port):
        opened = await opened_at(port)
        before = await all_at_once(opened)
        assert relay.num_connections > NUM_CALLS
        await relay.reset_connections()
        assert await all_at_once(opened) == before
        await opened.close()


async def test_a_commit_whose_answer_was_lost_is_stored_once(redis: RedisServer) -> None:
    """It is sent again, and finds itself."""
    async with relayed(redis.port) as (relay, port):
        opened = await opened_at(port)
        session = Session.fresh("digest")
        assert await opened.store.commit(session) is CommitResult.COMMITTED
        relay.answers_to_lose = 1
        assert await opened.store.commit(replace(session, version=1, last_sequence=7)) is CommitResult.COMMITTED
        assert relay.answers_to_lose == 0
        stored = await opened.store.load(session.id)
        assert stored is not None
        assert (stored.version, stored.last_sequence) == (2, 7)
        await opened.close()


async def test_a_commit_that_is_sent_again_is_not_mistaken_for_another_one(redis: RedisServer) -> None:
    """The same session is committed twice, to the byte. One of the two has changed nothing."""
    async with relayed(redis.port) as (relay, port):
        opened = await opened_at(port)
        session = Session.fresh("digest")
        assert await opened.store.commit(session) is CommitResult.COMMITTED
        relay.answers_to_lose = 1
        assert await opened.store.commit(session) is CommitResult.CHANGED
        assert relay.answers_to_lose == 0
        await opened.close()


async def test_a_commit_whose_answers_are_all_lost_is_unknown(redis: RedisServer) -> None:
    async with relayed(redis.port) as (relay, port):
        opened = await opened_at(port)
        await opened.store.ensure_room()
        relay.answers_to_lose = 100
        assert await opened.store.commit(Session.fresh("digest")) is CommitResult.UNKNOWN
        await opened.close()
