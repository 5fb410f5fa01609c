"""Embeddings of instructions in a real Redis: encoded once for all gateways, and no trouble of Redis costs a plan."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import numpy as np
import pytest
from redis import asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from loadtest.redis_server import RedisServer, redis_server
from tests.clock import ManualClock
from tests.planning.rig import MakeRig, Rig, RigOptions
from tests.policy.requests import first
from wavserve.core.types import TextEmbedding
from wavserve.policy.codec import Codec
from wavserve.policy.redis_texts import REST_S, VERSION, RedisTexts, StoredText, TextEncoder

ENCODER = TextEncoder("digest", "float32", channels=3, max_tokens=8)
TASK = "task 1"
"""what `first()` asks for"""


@pytest.fixture(scope="module")
def running() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def free_redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


def client_of(server: RedisServer) -> aioredis.Redis:
    return aioredis.Redis.from_url(
        server.url, socket_timeout=1.0, socket_connect_timeout=1.0, retry=Retry(NoBackoff(), 0)
    )


@pytest.fixture
async def client(running: RedisServer) -> AsyncIterator[aioredis.Redis]:
    async with client_of(running) as opened:
        await opened.flushall()
        yield opened


def embedding(instruction: str = TASK, seed: int = 0, channels: int = 3) -> TextEmbedding:
    tokens = np.random.default_rng(seed).standard_normal((4, channels), dtype=np.float32)
    return TextEmbedding(TextEmbedding.key_of(instruction), tokens)


def name_of(instruction: str = TASK) -> str:
    return f"wavserve:text:digest:float32:{TextEmbedding.key_of(instruction).hex()}"


async def stored(texts: RedisTexts, instruction: str = TASK) -> TextEmbedding:
    kept = embedding(instruction)
    texts.keep(kept)
    await texts.close()
    return kept


async def test_an_embedding_comes_back_equal_in_every_bit(client: aioredis.Redis) -> None:
    texts = RedisTexts(client, ENCODER, 8)
    assert await texts.find(TASK) is None
    kept = await stored(texts)
    found = await RedisTexts(client, ENCODER, 8).find(TASK)
    assert found is not None
    assert found.key == kept.key
    assert found.tokens.tobytes() == kept.tokens.tobytes()
    assert found.tokens.flags.writeable  # torch warns of arrays that are not


@pytest.mark.parametrize(
    "encoder", [replace(ENCODER, policy_digest="another"), replace(ENCODER, dtype="bfloat16")], ids=["policy", "dtype"]
)
async def test_another_encoder_has_embeddings_of_its_own(client: aioredis.Redis, encoder: TextEncoder) -> None:
    await stored(RedisTexts(client, ENCODER, 8))
    assert await RedisTexts(client, encoder, 8).find(TASK) is None


async def test_the_least_recently_used_goes_first(client: aioredis.Redis) -> None:
    texts = RedisTexts(client, ENCODER, 3)
    for task in ("a", "b", "c"):
        await stored(texts, task)
    assert await texts.find("a") is not None
    await stored(texts, "d")
    assert [await texts.find(task) is not None for task in "abcd"] == [True, False, True, True]
    assert await client.dbsize() == 4  # and the set of what was used when


async def test_each_use_prolongs_a_life(client: aioredis.Redis) -> None:
    texts = RedisTexts(client, ENCODER, 8)
    await stored(texts)
    for name in (name_of(), "wavserve:texts"):
        await client.pexpire(name, 1000)
    await texts.find(TASK)
    assert await client.pttl(name_of()) > 80_000_000
    assert await client.pttl("wavserve:texts") > 80_000_000


def record(stored: StoredText) -> bytes:
    return Codec(StoredText, b"WAVT", VERSION).encode(stored)


GOOD = record(StoredText("digest", "float32", embedding()))
NOT_FINITE = replace(embedding(), tokens=np.full((4, 3), np.nan, np.float32))


@pytest.mark.parametrize(
    "garbage",
    [
        b"garbage",
        b"",
        b"WAVT\x02" + GOOD[5:],
        GOOD[:-1],
        GOOD[:-1] + bytes([GOOD[-1] ^ 1]),
        record(StoredText("digest", "float32", embedding("another task"))),
        record(StoredText("another", "float32", embedding())),
        record(StoredText("digest", "float32", embedding(channels=2))),
        record(StoredText("digest", "float32", NOT_FINITE)),
    ],
    ids=["text", "empty", "version", "short", "bit", "other text", "other policy", "shape", "not finite"],
)
async def test_garbage_is_refused_and_overwritten(client: aioredis.Redis, garbage: bytes) -> None:
    texts = RedisTexts(client, ENCODER, 8)
    await client.set(name_of(), garbage)
    assert await texts.find(TASK) is None
    kept = await stored(texts)
    found = await texts.find(TASK)
    assert found is not None
    assert found.tokens.tobytes() == kept.tokens.tobytes()


async def test_values_of_another_type_are_overwritten(client: aioredis.Redis) -> None:
    texts = RedisTexts(client, ENCODER, 8)
    await client.hset(name_of(), "a", "b")
    await client.set("wavserve:texts", "c")
    assert await texts.find(TASK) is None
    await stored(texts)
    assert await texts.find(TASK) is not None


async def test_a_redis_that_stands_still_is_left_alone_for_a_while(free_redis: RedisServer) -> None:
    clock, calls = ManualClock(), list[tuple[str, str]]()
    async with client_of(free_redis) as opened:
        texts = RedisTexts(opened, ENCODER, 8, lambda operation, outcome, _: calls.append((operation, outcome)), clock)
        await stored(texts)
        assert free_redis.process is not None
        os.kill(free_redis.process.pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(0.9):  # the client itself waits for 1 s
                assert await texts.find(TASK) is None
            assert await texts.find(TASK) is None
            texts.keep(embedding("b"))
            await texts.close()
        finally:
            os.kill(free_redis.process.pid, signal.SIGCONT)
        assert calls == [("keep_text", "ok"), ("find_text", "failed")]
        clock.now += REST_S
        assert await texts.find(TASK) is not None


async def test_a_redis_that_is_gone_and_comes_back(free_redis: RedisServer) -> None:
    clock = ManualClock()
    async with client_of(free_redis) as opened:
        texts = RedisTexts(opened, ENCODER, 8, clock=clock)
        await stored(texts)
        free_redis.stop()
        assert await texts.find(TASK) is None
        free_redis.start()
        clock.now += REST_S
        await stored(texts)
        assert await texts.find(TASK) is not None


async def test_a_full_redis_still_tells_what_it_has() -> None:
    calls: list[tuple[str, str]] = []
    with redis_server("--maxmemory-policy", "noeviction") as server:
        async with client_of(server) as opened:
            texts = RedisTexts(opened, ENCODER, 8, lambda operation, outcome, _: calls.append((operation, outcome)))
            await stored(texts)
            await opened.config_set("maxmemory", 1)
            await stored(texts, "b")
            assert await texts.find(TASK) is not None
            assert await texts.find("b") is None
    assert ("keep_text", "full") in calls


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b":1\r\n", b"*1\r\n:1\r\n", b""])
async def test_a_server_that_answers_garbage_is_no_cache(answer: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536) and answer:
            writer.write(answer)
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with client_of(RedisServer(port)) as opened:
            texts = RedisTexts(opened, ENCODER, 8)
            assert await texts.find(TASK) is None
            texts.keep(embedding())
            await texts.close()


class Gateway:
    """A rig, how often it encoded an instruction, and its lookups."""

    def __init__(self) -> None:
        self.encoded = 0
        self.lookups: list[tuple[str, bool]] = []

    async def before(self, verb: str) -> None:
        self.encoded += verb == "encode_text"

    async def open(self, make_rig: MakeRig, client: aioredis.Redis) -> Rig:
        rig = await make_rig(RigOptions(before=self.before))
        encoder = TextEncoder("fake", "float32", rig.spec.model.video.caption_channels, rig.spec.max_prompt_tokens)
        rig.device.perception.shared = RedisTexts(client, encoder, 8)
        rig.device.perception.on_lookup = lambda where, found: self.lookups.append((where, found))
        return rig


async def test_an_instruction_is_encoded_by_one_gateway(make_rig: MakeRig, client: aioredis.Redis) -> None:
    one, two = Gateway(), Gateway()
    rigs = [await gateway.open(make_rig, client) for gateway in (one, two)]
    chunk = await rigs[0].policy.plan(first())
    await rigs[0].device.perception.shared.close()  # type: ignore[union-attr]
    for _ in range(2):
        elsewhere = await rigs[1].policy.plan(first())
        assert elsewhere.actions.tobytes() == chunk.actions.tobytes()
    assert (one.encoded, two.encoded) == (1, 0)
    assert one.lookups == [("process", False), ("redis", False)]
    assert two.lookups == [("process", False), ("redis", True), ("process", True)]


async def test_a_warm_up_encodes_on_its_own_device(make_rig: MakeRig, client: aioredis.Redis) -> None:
    """A device whose encoder has not run is not warm, whatever Redis knows; and nobody gets what it made so early."""
    gateways = [Gateway(), Gateway()]
    for gateway in gateways:
        rig = await gateway.open(make_rig, client)
        await rig.policy.warm_up()
        await rig.policy.drain()
    assert [gateway.encoded for gateway in gateways] == [1, 1]
    assert [gateway.lookups[0] for gateway in gateways] == [("process", True)] * 2
    assert await client.dbsize() == 0
