"""Sessions in Redis, which several gateways share.

`load` and `commit` are one Lua script each, so each is one round trip, and Redis does nothing else in between. WATCH
would need three. Knows nothing of plans.

Redis judges a commit's deadline by its own clock. Each answer tells that clock, so that a deadline can be translated:
the answer left Redis before it arrived here, so the translated deadline is never later than the true one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

from redis import asyncio as aioredis
from redis.exceptions import RedisError

from wavserve.core.errors import Overloaded, StoreUnavailable
from wavserve.core.types import Clock
from wavserve.policy.codec import UnreadableRecord
from wavserve.policy.redis_errors import is_final, is_full, reason
from wavserve.policy.session_codec import decode, encode
from wavserve.policy.sessions import CommitResult, Session
from wavserve.policy.store_state import StoreState

log = logging.getLogger(__name__)

_PREFIX = "wavserve:"
_WRITES = ("commit", "rehearsal")
_FULL_RETRY_S = 5.0
_CALL_S = 1.8
"""Longest time of a call, with the wait for a connection and a second attempt: less than a commit may take."""
_MAX_INLINE_BYTES = 65_536
"""Longer records are converted on a thread. One of the 2.3 B model has 0.5 MB and takes 2 ms, which robots on the event
loop do not wait for. Of a short one the hop to the thread takes longer than the conversion."""

# Returns Redis' clock and the record. Using a session prolongs its life; without ARGV[1] it is only looked at.
_LOAD = """
local record = redis.call('HGET', KEYS[1], 'record')
if record and ARGV[1] then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
local now = redis.call('TIME')
return {now[1], now[2], record}
"""

# A commit has an id, by which one that is sent again finds its first attempt: then it is stored already.
# A new session of a robot takes the place of the robot's older one: KEYS[2] has its name.
_COMMIT = """
local now = redis.call('TIME')
local stored, expected = tonumber(redis.call('HGET', KEYS[1], 'version') or 0), tonumber(ARGV[1])
if stored == expected + 1 and redis.call('HGET', KEYS[1], 'commit') == ARGV[6] then
    return {now[1], now[2], 'committed'}
end
if stored ~= expected then return {now[1], now[2], 'changed'} end
local deadline = tonumber(ARGV[2])
if deadline >= 0 and now[1] * 1000000 + now[2] > deadline then return {now[1], now[2], 'too_late'} end
if ARGV[5] ~= '' then
    local older = redis.call('GET', KEYS[2])
    if stored == 0 and older and older ~= KEYS[1] then redis.call('DEL', older) end
    redis.call('SET', KEYS[2], KEYS[1], 'PX', ARGV[3])
end
redis.call('HSET', KEYS[1], 'version', stored + 1, 'record', ARGV[4], 'commit', ARGV[6])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {now[1], now[2], 'committed'}
"""

OnCall = Callable[[str, str, float], None]
"""Told of each call to the store: `load`, `commit`, `time`, `end` or `rehearsal`; `ok`, `full` or `failed`; its
seconds."""


class RedisSessions:
    """Sessions in one Redis. They expire `ttl_s` after their last use; Redis' own `maxmemory` bounds their number."""

    def __init__(
        self,
        client: aioredis.Redis,
        ttl_s: float,
        on_call: OnCall = lambda *_: None,
        clock: Clock = time.monotonic,
        state: StoreState | None = None,
    ) -> None:
        """`client` has its timeouts and its bounded pool. It may send a call again: no call changes more the second
        time."""
        self._client = client
        self._ttl_ms = round(1e3 * ttl_s)
        self._on_call = on_call
        self._clock = clock
        self._state = state or StoreState(clock=clock)
        self._load = client.register_script(_LOAD)
        self._commit = client.register_script(_COMMIT)
        self._ahead_us: float | None = None  # Redis' clock minus ours, at most
        self._record_bytes = 0  # of the last one; those of a policy are alike

    async def load(self, session_id: str) -> Session | None:
        """Raises StoreUnavailable. A record that cannot be read is logged, and is as unknown as an expired one."""
        return await self._found(session_id, [self._ttl_ms])

    async def peek(self, session_id: str) -> Session | None:
        """As in `SessionStore`. Raises StoreUnavailable."""
        return await self._found(session_id, [])

    async def commit(self, session: Session, deadline: float = math.inf) -> CommitResult:
        """As in `SessionStore`. Raises Overloaded when Redis is full."""
        record = await self._record(replace(session, version=session.version + 1))
        keys = [_session_key(session.id), _robot_key(session.robot_id)]
        args: list[str | int | bytes] = [
            session.version,
            self._translated(deadline),
            self._ttl_ms,
            record,
            session.robot_id,
            secrets.token_hex(8),
        ]
        try:
            async with self._called("commit"):
                seconds, micros, result = await self._commit(keys=keys, args=args)
                self._note_time(seconds, micros)
                told = CommitResult(_checked_bytes(result).decode())
                self._state.served(wrote=told is CommitResult.COMMITTED)
                return told
        except StoreUnavailable:
            return CommitResult.UNKNOWN

    async def ensure_room(self, robot_id: str = "") -> None:
        """Raises StoreUnavailable, and Overloaded while Redis is known to be full."""
        await self.ensure_writable()
        async with self._called("time"):
            self._note_time(*await self._client.time())

    async def ensure_writable(self) -> None:
        """As in `SessionStore`. While Redis is full, one request in a while tries to store for all of them."""
        if not self._state.is_full:
            return
        if not self._state.begin_try():
            raise _full()
        await self.rehearse()

    async def end(self, session_id: str) -> None:
        """Without an answer of Redis the session ends when it expires."""
        with contextlib.suppress(StoreUnavailable):
            async with self._called("end"):
                await self._client.delete(_session_key(session_id))

    async def rehearse(self) -> None:
        """Makes every call once, with a session that does not stay. Raises StoreUnavailable and Overloaded."""
        session = Session.fresh("")
        names = [_session_key(session.id), _robot_key(session.id)]
        async with self._called("rehearsal"):
            await self._load(keys=names[:1], args=[self._ttl_ms])
            await self._commit(keys=names, args=[0, -1, self._ttl_ms, "", session.id, ""])
            await self._client.delete(*names)
            self._state.served(wrote=True)

    async def _found(self, session_id: str, ttl_ms: list[int]) -> Session | None:
        async with self._called("load"):
            seconds, micros, record = await self._load(keys=[_session_key(session_id)], args=ttl_ms)
            self._note_time(seconds, micros)
            known = None if record is None else _checked_bytes(record)
        if known is None:
            return None
        try:
            return decode(known) if len(known) <= _MAX_INLINE_BYTES else await asyncio.to_thread(decode, known)
        except UnreadableRecord as error:
            log.error("a session's record in Redis is dropped: %s", error)
            return None

    @contextlib.asynccontextmanager
    async def _called(self, operation: str) -> AsyncIterator[None]:
        """One call, however it ends. Raises Overloaded and StoreUnavailable."""
        began, outcome = self._clock(), "failed"
        try:
            async with asyncio.timeout(_CALL_S):
                yield
            outcome = "ok"
            self._state.served(wrote=False)
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        except (RedisError, OSError, ValueError, TypeError) as error:  # the last two: an answer of another shape
            if is_full(error):
                outcome = "full"
                self._state.filled()
                raise _full() from error
            why = f"Redis (sessions.url) {reason(error, operation)}"
            if not (operation == "rehearsal" and is_final(error)):  # then the service does not start
                self._state.failed(why, writing=operation in _WRITES)
            raise StoreUnavailable(why) from error
        finally:
            self._on_call(operation, outcome, self._clock() - began)

    async def _record(self, session: Session) -> bytes:
        inline = self._record_bytes <= _MAX_INLINE_BYTES
        record = encode(session) if inline else await asyncio.to_thread(encode, session)
        self._record_bytes = len(record)
        return record

    def _note_time(self, seconds: Any, micros: Any) -> None:
        self._ahead_us = 1e6 * int(seconds) + int(micros) - 1e6 * self._clock()

    def _translated(self, deadline: float) -> int:
        """A deadline of our clock in microseconds of Redis' clock; -1: there is none."""
        if deadline == math.inf:
            return -1
        return 0 if self._ahead_us is None else math.floor(1e6 * deadline + self._ahead_us)


def _full() -> Overloaded:
    return Overloaded("the session store is full", _FULL_RETRY_S, reason="sessions")


def _checked_bytes(answer: Any) -> bytes:
    if not isinstance(answer, bytes):
        raise TypeError(f"expected bytes, got {type(answer).__name__}")
    return answer


def _session_key(session_id: str) -> str:
    return f"{_PREFIX}session:{session_id}"


def _robot_key(robot_id: str) -> str:
    return f"{_PREFIX}robot:{robot_id}"
