"""Opens the session store that the settings name: this process's memory, or Redis. Nothing else knows both.

Gateways that share a Redis also share the embeddings of instructions in it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from redis import asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, RedisError
from redis.maint_notifications import MaintNotificationsConfig

from wavserve.app.settings import SessionSettings, Settings
from wavserve.app.settings_types import StoreUrl, store_url
from wavserve.core.errors import Overloaded, SettingsError, StoreUnavailable
from wavserve.policy.fresh_sessions import FreshWhenDown
from wavserve.policy.redis_errors import is_final, reason
from wavserve.policy.redis_sessions import OnCall, RedisSessions
from wavserve.policy.redis_texts import RedisTexts, TextEncoder
from wavserve.policy.sessions import MemorySessions, SessionStore
from wavserve.policy.store_state import StoreState


async def _nothing() -> None:
    pass


log = logging.getLogger(__name__)

_MEANWHILE = {
    "fail": "plans fail, and the same request again may succeed",
    "fresh": "sessions go on in this process, and each begins there without frame memory",
}
"""What robots get while Redis does not serve, by `sessions.when_down`."""


@dataclass(frozen=True, slots=True)
class OpenedStore:
    """A session store, and the sessions of it that are in this process."""

    store: SessionStore
    local: MemorySessions
    close: Callable[[], Awaitable[None]] = _nothing
    where: str = ""
    """the shared store, without a password; empty: there is none"""
    client: aioredis.Redis | None = None


async def open_store(settings: Settings, on_call: OnCall) -> OpenedStore:
    """Opens the store. A Redis that does not answer yet is no error: `sessions.when_down` says what robots get.

    Raises SettingsError for a file that holds no URL, and for a Redis that no waiting mends: one in cluster mode, one
    that refuses the user, the password, the database or a command.
    """
    chosen = settings.sessions
    local = MemorySessions(chosen.ttl_s, chosen.max_sessions)
    url = chosen.url if chosen.url_file is None else _read(chosen)
    if url is None:
        return OpenedStore(local, local)
    client = _client(url, chosen)
    log.info("sessions are in Redis at %s", url)
    shared = RedisSessions(client, chosen.ttl_s, on_call, state=StoreState(_MEANWHILE[chosen.when_down]))
    try:
        await _check(client, shared, url, _name(chosen))
    except BaseException:
        await client.aclose()
        raise
    store = shared if chosen.when_down == "fail" else FreshWhenDown(shared, local)
    return OpenedStore(store, local, client.aclose, str(url), client)


def open_texts(opened: OpenedStore, settings: Settings, encoder: TextEncoder, on_call: OnCall) -> RedisTexts | None:
    """The embeddings of instructions that gateways share; None: sessions are in this process, and so are they."""
    if opened.client is None:
        return None
    return RedisTexts(opened.client, encoder, settings.backend.max_cached_texts, on_call)


def _read(chosen: SessionSettings) -> StoreUrl:
    assert chosen.url_file is not None
    try:
        return store_url(StoreUrl(chosen.url_file.read_text(encoding="utf-8").strip()))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "another text"
        raise SettingsError(f"sessions.url_file: expected a file with the URL of a Redis, got {why}") from None


def _client(url: StoreUrl, chosen: SessionSettings) -> aioredis.Redis:
    """A client that sends a call again, once and on a new connection, when the connection ended: it may have done so
    while it was idle. A call that takes too long is not sent again. Raises SettingsError.
    """
    try:
        pool = aioredis.BlockingConnectionPool.from_url(
            url.get_secret_value(),
            max_connections=chosen.max_connections,
            timeout=chosen.timeout_s,
            socket_timeout=chosen.timeout_s,
            socket_connect_timeout=chosen.timeout_s,
            retry=Retry(NoBackoff(), 1, supported_errors=(ConnectionError,)),
            maint_notifications_config=MaintNotificationsConfig(enabled=False),  # else the pool gives out closed ones
        )
        pool.connection_class(**pool.connection_kwargs)  # the pool itself makes one at its first call only
    except (RedisError, TypeError, ValueError):
        raise SettingsError(f"sessions.{_name(chosen)}: expected a URL with right values in its query") from None
    return aioredis.Redis.from_pool(pool)


def _name(chosen: SessionSettings) -> str:
    return "url" if chosen.url_file is None else "url_file"


async def _check(client: aioredis.Redis, shared: RedisSessions, url: StoreUrl, name: str) -> None:
    """Refuses what no waiting mends. A Redis that does not answer yet, or is full, is no error.

    `name`: of the setting. Raises SettingsError.
    """
    try:
        await _check_alone(client, url, name)
        await shared.rehearse()
    except (StoreUnavailable, Overloaded) as error:
        cause = error.__cause__
        if cause is not None and is_final(cause):
            raise SettingsError(f"sessions.{name}: Redis at {url} {reason(cause, 'at the start')}") from None


async def _check_alone(client: aioredis.Redis, url: StoreUrl, name: str) -> None:
    """A cluster would send each session to another server. Nothing is refused where Redis does not tell."""
    try:
        facts = await client.info("cluster")
    except (RedisError, OSError, ValueError, TypeError, AttributeError):  # the last three: no Redis answers
        return
    if facts.get("cluster_enabled"):
        raise SettingsError(f"sessions.{name}: expected a Redis that is no cluster, got a node of a cluster at {url}")
