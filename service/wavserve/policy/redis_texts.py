"""Embeddings of instructions in Redis: what one gateway encoded, another need not encode again.

It is a cache. A Redis that is slow, gone, full or wrong costs a plan LOOKUP_S at most, and never its answer: then the
gateway encodes the instruction itself. Each call is one Lua script. Knows no sessions and no plans.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import numpy as np
from redis import asyncio as aioredis
from redis.exceptions import OutOfMemoryError, RedisError, ResponseError

from wavserve.core.types import Clock, TextEmbedding
from wavserve.policy.codec import Codec, UnreadableRecord
from wavserve.policy.redis_sessions import OnCall

log = logging.getLogger(__name__)

VERSION = 1
"""Rises when a type inside a record changes: a record of another version is refused, and overwritten."""
LOOKUP_S = 0.05
"""Longest time that a call may take: no longer than the encoder of a large policy."""
REST_S = 1.0
"""How long Redis is not asked after a call that failed."""
_TTL_MS = 24 * 3600 * 1000  # after the last use; removes embeddings of policies that nobody serves any more
_PREFIX = "wavserve:text:"
_RECENT = "wavserve:texts"
"""Sorted set: the keys by their last use."""

# In a Redis that is full the note of the use fails, and the embedding is found all the same.
_FIND = """
local record = redis.call('GET', KEYS[1])
if not record then return false end
local now = redis.call('TIME')
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.pcall('ZADD', KEYS[2], now[1] + now[2] / 1e6, KEYS[1])
redis.call('PEXPIRE', KEYS[2], ARGV[1])
return record
"""

# A cache that is full loses the embeddings whose last use is the longest ago.
_KEEP = """
local now = redis.call('TIME')
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[1])
if redis.call('TYPE', KEYS[2]).ok ~= 'zset' then redis.call('DEL', KEYS[2]) end
redis.call('ZADD', KEYS[2], now[1] + now[2] / 1e6, KEYS[1])
redis.call('PEXPIRE', KEYS[2], ARGV[1])
local surplus = redis.call('ZCARD', KEYS[2]) - ARGV[3]
if surplus > 0 then
    for _, key in ipairs(redis.call('ZRANGE', KEYS[2], 0, surplus - 1)) do redis.call('DEL', key) end
    redis.call('ZREMRANGEBYRANK', KEYS[2], 0, surplus - 1)
end
"""


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """What an embedding depends on besides the text."""

    policy_digest: str
    dtype: str
    """numeric type of the models"""
    channels: int
    """of an embedding"""
    max_tokens: int


@dataclass(frozen=True, slots=True)
class StoredText:
    """An embedding as it is stored: it names what it was made of, so that one under a wrong key is noticed."""

    policy_digest: str
    dtype: str
    embedding: TextEmbedding


_CODEC = Codec(StoredText, b"WAVT", VERSION)


class RedisTexts:
    """Embeddings of one policy in one Redis, `max_texts` of all policies together. No call raises."""

    def __init__(
        self,
        client: aioredis.Redis,
        encoder: TextEncoder,
        max_texts: int,
        on_call: OnCall = lambda *_: None,
        clock: Clock = time.monotonic,
    ) -> None:
        """`on_call` is told of the operations `find_text` and `keep_text`. `client`: as for sessions."""
        self._encoder = encoder
        self._max_texts = max_texts
        self._on_call = on_call
        self._clock = clock
        self._find = client.register_script(_FIND)
        self._keep = client.register_script(_KEEP)
        self._rests_until = -float("inf")
        self._storing: set[asyncio.Task[None]] = set()

    async def find(self, instruction: str) -> TextEmbedding | None:
        """The embedding of an instruction, equal in every bit. None: nobody stored one, or Redis does not say."""
        key = TextEmbedding.key_of(instruction)
        record = await self._called("find_text", self._find(keys=self._names(key), args=[_TTL_MS]))
        if record is None:
            return None
        try:
            return self._checked(await asyncio.to_thread(_CODEC.decode, record), key)
        except (UnreadableRecord, TypeError) as error:  # TypeError: Redis sent no bytes
            log.warning("an instruction's embedding in Redis is not used: %s", error)
            return None

    def keep(self, embedding: TextEmbedding) -> None:
        """Stores an embedding in the background."""
        task = asyncio.create_task(self._store(embedding))
        self._storing.add(task)
        task.add_done_callback(self._storing.discard)

    async def close(self) -> None:
        """Waits for what is under way in the background, LOOKUP_S at most."""
        await asyncio.gather(*self._storing)

    async def _store(self, embedding: TextEmbedding) -> None:
        stored = StoredText(self._encoder.policy_digest, self._encoder.dtype, embedding)
        record = await asyncio.to_thread(_CODEC.encode, stored)
        call = self._keep(keys=self._names(embedding.key), args=[_TTL_MS, record, self._max_texts])
        await self._called("keep_text", call)

    def _names(self, key: bytes) -> list[str]:
        return [f"{_PREFIX}{self._encoder.policy_digest}:{self._encoder.dtype}:{key.hex()}", _RECENT]

    async def _called(self, operation: str, call: Coroutine[Any, Any, Any]) -> Any:
        """The result of a call; None when it failed. A Redis that does not answer is left alone for a while."""
        if (began := self._clock()) < self._rests_until:
            call.close()
            return None
        outcome, result = "failed", None
        try:
            async with asyncio.timeout(LOOKUP_S):
                result = await call
            outcome = "ok"
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        except OutOfMemoryError:
            outcome = "full"
        except ResponseError:  # what is under this name is no embedding
            pass
        except (RedisError, OSError, ValueError, TypeError):  # OSError: also the timeout; the last two: no Redis talks
            self._rests_until = self._clock() + REST_S
        finally:
            self._on_call(operation, outcome, self._clock() - began)
        return result

    def _checked(self, stored: StoredText, key: bytes) -> TextEmbedding:
        """The embedding in memory of its own. Raises UnreadableRecord when it is not the one that was asked for."""
        ours, tokens = self._encoder, stored.embedding.tokens
        if (stored.policy_digest, stored.dtype, stored.embedding.key) != (ours.policy_digest, ours.dtype, key):
            raise UnreadableRecord("it is of another policy, number type or text")
        fits = tokens.ndim == 2 and 1 <= len(tokens) <= ours.max_tokens and tokens.shape[1] == ours.channels
        if not fits or tokens.dtype != np.float32 or not np.isfinite(tokens).all():
            raise UnreadableRecord(f"expected at most {ours.max_tokens} finite tokens of {ours.channels} channels")
        return TextEmbedding(key, tokens.copy())
