"""Sessions in a real Redis: commits by compare-and-set, deadlines by Redis' clock, and what its failures become."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest
from redis import asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from loadtest.redis_server import RedisServer, redis_server
from tests.clock import ManualClock
from tests.planning.rig import MakeRig, Rig, RigOptions, example_request, example_spec
from tests.policy.requests import first, follow
from wavserve.core.errors import OutcomeUnknown, Overloaded, SequenceConflict, StaleEpoch, StoreUnavailable
from wavserve.policy.redis_sessions import RedisSessions
from wavserve.policy.sessions import CommitResult, Session
from wavserve.policy.store_state import FULL_S

TIMEOUT_S = 0.3


@pytest.fixture(scope="module")
def running() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


def client_of(server: RedisServer) -> aioredis.Redis:
    return aioredis.Redis.from_url(
        server.url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, retry=Retry(NoBackoff(), 0)
    )


@pytest.fixture
async def client(running: RedisServer) -> AsyncIterator[aioredis.Redis]:
    async with client_of(running) as opened:
        await opened.flushall()
        yield opened


@pytest.fixture
def store(client: aioredis.Redis) -> RedisSessions:
    return RedisSessions(client, ttl_s=600.0)


async def committed(store: RedisSessions, **fields: object) -> Session:
    session = replace(Session.fresh("digest"), **fields)  # type: ignore[arg-type]
    assert await store.commit(session) is CommitResult.COMMITTED
    stored = await store.load(session.id)
    assert stored is not None
    return stored


async def test_a_commit_is_compare_and_set(store: RedisSessions) -> None:
    stored = await committed(store)
    assert stored.version == 1
    assert await store.commit(replace(stored, last_sequence=7)) is CommitResult.COMMITTED
    assert await store.commit(replace(stored, last_sequence=8)) is CommitResult.CHANGED
    later = await store.load(stored.id)
    assert later is not None
    assert (later.version, later.last_sequence) == (2, 7)


async def test_of_commits_at_the_same_time_one_is_stored(store: RedisSessions) -> None:
    stored = await committed(store)
    results = await asyncio.gather(*(store.commit(replace(stored, last_sequence=n)) for n in range(20)))
    assert sorted(result.value for result in results) == ["changed"] * 19 + ["committed"]


async def test_a_session_that_expired_takes_no_commit(store: RedisSessions, client: aioredis.Redis) -> None:
    stored = await committed(store)
    await client.delete(f"wavserve:session:{stored.id}")
    assert await store.load(stored.id) is None
    assert await store.commit(stored) is CommitResult.CHANGED


async def test_a_session_that_ended_is_unknown(store: RedisSessions) -> None:
    stored = await committed(store)
    await store.end(stored.id)
    assert await store.load(stored.id) is None


async def test_each_use_prolongs_a_session(store: RedisSessions, client: aioredis.Redis) -> None:
    stored = await committed(store)
    key = f"wavserve:session:{stored.id}"
    await client.pexpire(key, 1000)
    await store.load(stored.id)
    assert await client.pttl(key) > 590_000


async def test_a_look_at_a_session_does_not_prolong_it(store: RedisSessions, client: aioredis.Redis) -> None:
    stored = await committed(store)
    key = f"wavserve:session:{stored.id}"
    await client.pexpire(key, 60_000)
    assert await store.peek(stored.id) == stored
    assert await client.pttl(key) <= 60_000
    assert await store.peek("unknown") is None


@pytest.mark.parametrize(("late_s", "result"), [(0.2, CommitResult.COMMITTED), (-0.001, CommitResult.TOO_LATE)])
async def test_redis_judges_a_deadline(client: aioredis.Redis, late_s: float, result: CommitResult) -> None:
    clock = ManualClock()
    store = RedisSessions(client, 600.0, clock=clock)
    await store.ensure_room()
    session = Session.fresh("digest")
    assert await store.commit(session, clock.now + late_s) is result
    assert (await store.load(session.id) is not None) is (result is CommitResult.COMMITTED)


async def test_a_deadline_passes_while_a_commit_waits_for_redis(client: aioredis.Redis, running: RedisServer) -> None:
    """The gateway's clock says nothing of when Redis gets to it. The answer is lost, and nothing is stored."""
    store = RedisSessions(client, 600.0)
    await store.ensure_room()
    session = Session.fresh("digest")
    assert running.process is not None
    os.kill(running.process.pid, signal.SIGSTOP)
    try:
        deadline = asyncio.get_running_loop().time() + 0.1
        assert await store.commit(session, deadline) is CommitResult.UNKNOWN
    finally:
        os.kill(running.process.pid, signal.SIGCONT)
    assert await store.load(session.id) is None


async def test_a_new_session_of_a_robot_takes_the_place_of_its_older_one(store: RedisSessions) -> None:
    older = await committed(store, robot_id="arm-1")
    other = await committed(store, robot_id="arm-2")
    newer = await committed(store, robot_id="arm-1")
    assert await store.load(older.id) is None
    assert await store.load(newer.id) is not None
    assert await store.load(other.id) is not None
    assert await store.commit(newer) is CommitResult.COMMITTED  # a later commit removes nothing
    assert await store.load(newer.id) is not None


@pytest.mark.parametrize("record", [b"", b"garbage", b"WAVS\x02" + bytes(40), b"WAVS\x01" + bytes(40)])
async def test_a_record_that_cannot_be_read_is_an_unknown_session(
    store: RedisSessions, client: aioredis.Redis, record: bytes
) -> None:
    stored = await committed(store)
    await client.hset(f"wavserve:session:{stored.id}", "record", record)
    assert await store.load(stored.id) is None


async def test_a_redis_that_is_gone_and_comes_back(free_redis: RedisServer) -> None:
    async with client_of(free_redis) as opened:
        calls: list[tuple[str, str]] = []
        store = RedisSessions(opened, 600.0, on_call=lambda operation, outcome, _: calls.append((operation, outcome)))
        stored = await committed(store)
        free_redis.stop()
        with pytest.raises(StoreUnavailable, match="load"):
            await store.load(stored.id)
        with pytest.raises(StoreUnavailable):
            await store.ensure_room()
        assert await store.commit(stored) is CommitResult.UNKNOWN
        free_redis.start()
        assert await store.load(stored.id) is None  # this Redis kept nothing on disk
        await committed(store)
    assert ("load", "failed") in calls
    assert calls[-1] == ("load", "ok")


@pytest.fixture
def free_redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


async def test_a_full_redis_refuses_new_sessions_and_keeps_old_ones() -> None:
    with redis_server("--maxmemory-policy", "noeviction") as server:
        async with client_of(server) as opened:
            store = RedisSessions(opened, 600.0)
            stored = await committed(store)
            await opened.config_set("maxmemory", 1)
            with pytest.raises(Overloaded, match="store is full"):
                await store.commit(Session.fresh("digest"))
            assert await store.load(stored.id) is not None


async def test_while_redis_is_full_no_plan_is_computed_for_nothing(
    make_rig: MakeRig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    clock = ManualClock()
    with redis_server("--maxmemory-policy", "noeviction") as server:
        async with client_of(server) as opened:
            store = RedisSessions(opened, 600.0, clock=clock)
            (rig,) = await gateways(make_rig, store, 1)
            answered = await rig.policy.plan(first())
            retried = follow(answered, 2, sequence=1, executed_steps=2)
            assert (await rig.policy.plan(retried)).sequence == 1
            await opened.config_set("maxmemory", 1)
            following = follow(answered, 3, sequence=2, executed_steps=2)
            with pytest.raises(Overloaded) as told:
                await rig.policy.plan(following)
            computed = len(rig.backend.calls)
            for _ in range(3):
                for request in (following, first(5)):
                    with pytest.raises(Overloaded) as caught:
                        await rig.policy.plan(request)
                    same = (caught.value.message, caught.value.retry_after_s, caught.value.reason)
                    assert same == (told.value.message, told.value.retry_after_s, told.value.reason)
                with pytest.raises(Overloaded):
                    await rig.policy.open_session("arm", None, None)
                clock.now += FULL_S
            assert len(rig.backend.calls) == computed
            assert (await rig.policy.plan(retried)).sequence == 1, "a retry stores nothing"
            await opened.config_set("maxmemory", 0)
            assert (await rig.policy.plan(following)).sequence == 2
    assert [each.levelname for each in caplog.records if "Redis" in each.message] == ["WARNING", "INFO"]


async def test_a_commit_that_stores_nothing_does_not_show_that_redis_has_room(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    with redis_server("--maxmemory-policy", "noeviction") as server:
        async with client_of(server) as opened:
            store = RedisSessions(opened, 600.0, clock=ManualClock())
            stored = await committed(store)
            await opened.config_set("maxmemory", 1)
            with pytest.raises(Overloaded):
                await store.commit(stored)
            assert await store.commit(replace(stored, version=9)) is CommitResult.CHANGED
            with pytest.raises(Overloaded):
                await store.ensure_writable()
    assert [each.levelname for each in caplog.records if "Redis" in each.message] == ["WARNING"]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"*3\r\n$1\r\nx\r\n$1\r\ny\r\n$-1\r\n",
        b"*3\r\n:1\r\n:1\r\n:5\r\n",
        b":1\r\n",
        b"",
    ],
)
async def test_a_server_that_answers_garbage_is_no_store(answer: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536) and answer:
            writer.write(answer)
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with client_of(RedisServer(port)) as opened:
            store = RedisSessions(opened, 600.0)
            with pytest.raises(StoreUnavailable):
                await store.load("id")
            assert await store.commit(Session.fresh("digest")) is CommitResult.UNKNOWN


async def gateways(make_rig: MakeRig, store: RedisSessions, num: int = 2) -> list[Rig]:
    return [await make_rig(RigOptions(store=lambda _: store)) for _ in range(num)]


async def test_a_robot_that_alternates_between_gateways_gets_what_one_that_stays_gets(
    make_rig: MakeRig, store: RedisSessions
) -> None:
    one, two = await gateways(make_rig, store)
    stays = alternates = await one.policy.plan(first())
    assert stays is alternates
    alternates = await two.policy.plan(first())
    for sequence in range(1, 6):
        stays = await one.policy.plan(follow(stays, sequence + 1, sequence=sequence, executed_steps=2))
        gateway = (one, two)[sequence % 2]
        alternates = await gateway.policy.plan(follow(alternates, sequence + 1, sequence=sequence, executed_steps=2))
        assert stays.actions.tobytes() == alternates.actions.tobytes()
        assert stays.receipt.warm_start == alternates.receipt.warm_start
        assert stays.receipt.digests == alternates.receipt.digests


async def test_a_retry_at_another_gateway_gets_the_first_answer(make_rig: MakeRig, store: RedisSessions) -> None:
    one, two = await gateways(make_rig, store)
    opened = await one.policy.plan(first())
    request = follow(opened, 2, sequence=1, executed_steps=2)
    answered = await one.policy.plan(request)
    again = await two.policy.plan(request)
    assert again.chunk_id == answered.chunk_id
    assert again.actions.tobytes() == answered.actions.tobytes()
    with pytest.raises(SequenceConflict):
        await two.policy.plan(follow(opened, 3, sequence=1, executed_steps=2))


async def test_a_stream_that_a_partition_cut_off_cannot_commit_over_its_successor(
    make_rig: MakeRig, store: RedisSessions
) -> None:
    one, two = await gateways(make_rig, store)
    old = await one.policy.open_session("arm-1", None, None)
    request = example_request(example_spec())
    await one.policy.plan(replace(request, session_id=old.session_id, sequence=old.next_sequence, epoch=old.epoch))
    new = await two.policy.open_session("arm-1", old.session_id, None)
    assert (new.session_id, new.epoch, new.resumed) == (old.session_id, old.epoch + 1, True)
    with pytest.raises(StaleEpoch):
        await one.policy.plan(replace(request, session_id=old.session_id, sequence=1, epoch=old.epoch))
    chunk = await two.policy.plan(replace(request, session_id=new.session_id, sequence=1, epoch=new.epoch))
    assert not chunk.fresh_memory


async def test_a_commit_without_an_answer_is_resolved_by_a_retry(make_rig: MakeRig, running: RedisServer) -> None:
    async with client_of(running) as opened:
        real = RedisSessions(opened, 600.0)

        class Deaf(RedisSessions):
            """Commits, and its first answer is lost."""

            deaf = True

            async def commit(self, session: Session, deadline: float = float("inf")) -> CommitResult:
                result = await super().commit(session, deadline)
                lost, self.deaf = self.deaf, False
                return CommitResult.UNKNOWN if lost else result

        (rig,) = await gateways(make_rig, real, 1)
        chunk = await rig.policy.plan(first())
        (deaf,) = await gateways(make_rig, Deaf(opened, 600.0), 1)
        request = follow(chunk, 2, sequence=1, executed_steps=2)
        with pytest.raises(OutcomeUnknown):
            await deaf.policy.plan(request)
        answered = await deaf.policy.plan(request)
        assert answered.sequence == 1
        assert (await rig.policy.plan(request)).chunk_id == answered.chunk_id
