"""The session store that settings name: which one it is, what is refused, and that no password is shown."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from redis import asyncio as aioredis

from loadtest.redis_server import RedisServer, redis_server
from wavserve.app.session_store import open_store, open_texts
from wavserve.app.settings import Settings
from wavserve.app.settings_sources import Given, load_settings
from wavserve.app.settings_types import StoreUrl
from wavserve.core.errors import SettingsError, StoreUnavailable
from wavserve.core.types import TextEmbedding
from wavserve.policy.fresh_sessions import FreshWhenDown
from wavserve.policy.redis_sessions import RedisSessions
from wavserve.policy.redis_texts import TextEncoder
from wavserve.policy.sessions import CommitResult, MemorySessions, Session
from wavserve.system.processes import free_ports

ENCODER = TextEncoder("digest", "float32", channels=3, max_tokens=8)
PASSWORD = "s3cret-pass"


def settings(**values: str) -> Settings:
    return load_settings(
        None, {}, [Given(f"sessions.{name}", value, "test") for name, value in values.items()]
    ).settings


async def test_without_a_url_sessions_are_in_this_process() -> None:
    opened = await open_store(Settings(), lambda *_: None)
    assert isinstance(opened.store, MemorySessions)
    assert opened.store is opened.local
    assert open_texts(opened, Settings(), ENCODER, lambda *_: None) is None


async def test_gateways_with_one_redis_share_the_embeddings_of_instructions() -> None:
    embedding = TextEmbedding(TextEmbedding.key_of("task"), np.ones((2, 3), np.float32))
    with redis_server() as server:
        gateways = [await open_store(settings(url=server.url), lambda *_: None) for _ in range(2)]
        one, two = (open_texts(each, Settings(), ENCODER, lambda *_: None) for each in gateways)
        assert one is not None
        assert two is not None
        one.keep(embedding)
        await one.close()
        assert await two.find("task") is not None
        for each in gateways:
            await each.close()


@pytest.mark.parametrize("from_file", [False, True])
async def test_a_url_with_a_password_opens_redis(tmp_path: Path, from_file: bool) -> None:
    with redis_server("--requirepass", PASSWORD) as server:
        url = f"redis://:{PASSWORD}@127.0.0.1:{server.port}/3"
        (tmp_path / "url").write_text(url + "\n")
        chosen = settings(url_file=str(tmp_path / "url")) if from_file else settings(url=url)
        opened = await open_store(chosen, lambda *_: None)
        assert isinstance(opened.store, RedisSessions)
        session = Session.fresh("digest")
        assert await opened.store.commit(session) is CommitResult.COMMITTED
        await opened.close()


@pytest.mark.parametrize("login", ["", f":{PASSWORD}@", f"robot:{PASSWORD}@"])
@pytest.mark.parametrize("when_down", ["fail", "fresh"])
async def test_a_start_with_refused_credentials_fails(login: str, when_down: str) -> None:
    with redis_server("--requirepass", "another") as server:
        url = f"redis://{login}127.0.0.1:{server.port}"
        with pytest.raises(SettingsError, match=r"sessions\.url: .*refused the user or password") as caught:
            await open_store(settings(url=url, when_down=when_down), lambda *_: None)
    assert PASSWORD not in str(caught.value)
    assert str(server.port) in str(caught.value)


@pytest.mark.parametrize("forbidden", ["-hset", "-evalsha", "-del", "-time", "keys"])
async def test_a_start_as_a_user_who_may_not_do_what_sessions_need_fails(forbidden: str) -> None:
    keys, commands = (["other:*"], ["+@all"]) if forbidden == "keys" else (["wavserve:*"], ["+@all", forbidden])
    with redis_server() as server:
        url = await url_of_user(server, keys, commands)
        with pytest.raises(SettingsError, match=r"sessions\.url: .*refused a call") as caught:
            await open_store(settings(url=url), lambda *_: None)
    assert PASSWORD not in str(caught.value)


async def test_a_user_who_may_do_no_more_than_sessions_need_is_enough() -> None:
    needed = ["evalsha", "script|load", "time", "hget", "hset", "get", "set", "del", "pexpire"]
    with redis_server() as server:
        url = await url_of_user(server, ["wavserve:*"], [f"+{command}" for command in needed])
        opened = await open_store(settings(url=url), lambda *_: None)
        async with aioredis.Redis.from_url(server.url) as admin:
            assert await admin.keys() == [], "what the start tried is gone"
        assert await opened.store.commit(Session.fresh("d")) is CommitResult.COMMITTED
        await opened.close()


async def url_of_user(server: RedisServer, keys: list[str], commands: list[str]) -> str:
    async with aioredis.Redis.from_url(server.url) as admin:
        await admin.acl_setuser("robots", enabled=True, passwords=[f"+{PASSWORD}"], keys=keys, commands=commands)
    return f"redis://robots:{PASSWORD}@127.0.0.1:{server.port}"


async def test_a_database_that_redis_does_not_have_is_refused() -> None:
    with redis_server() as server, pytest.raises(SettingsError, match=r"sessions\.url: .*DB index is out of range"):
        await open_store(settings(url=f"redis://127.0.0.1:{server.port}/99"), lambda *_: None)


async def test_credentials_that_are_refused_later_are_an_error_that_says_so() -> None:
    with redis_server("--requirepass", PASSWORD) as server:
        url = f"redis://:{PASSWORD}@127.0.0.1:{server.port}"
        opened = await open_store(settings(url=url), lambda *_: None)
        async with aioredis.Redis.from_url(url) as admin:
            await admin.config_set("requirepass", "another")
            await admin.client_kill_filter(_type="normal", skipme=True)
        with pytest.raises(StoreUnavailable, match="refused the user or password: load") as caught:
            await opened.store.load("id")
        assert PASSWORD not in str(caught.value)
        await opened.close()


async def test_a_replica_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """It may become the primary."""
    with redis_server("--replicaof", "127.0.0.1", "1") as server:
        opened = await open_store(settings(url=server.url), lambda *_: None)
        await opened.close()
    assert "refused a call: rehearsal: You can't write against a read only replica" in caplog.text


@pytest.mark.parametrize(
    ("when_down", "meanwhile"), [("fail", "plans fail"), ("fresh", "each begins there without frame memory")]
)
async def test_the_log_says_once_that_redis_went_and_once_that_it_is_back(
    when_down: str, meanwhile: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with redis_server() as server:
        opened = await open_store(settings(url=server.url, when_down=when_down), lambda *_: None)
        session = Session.fresh("d")
        await opened.store.commit(session)
        server.stop()
        for _ in range(5):
            with contextlib.suppress(StoreUnavailable):
                await opened.store.load(session.id)
            await opened.store.commit(replace(session, version=1))
        server.start()
        for _ in range(5):
            await opened.store.load(session.id)
            await opened.store.commit(Session.fresh("d"))
        await opened.close()
    told = [(each.levelname, each.message) for each in caplog.records]
    assert [level for level, _ in told] == ["INFO", "WARNING", "INFO"]
    assert told[0][1] == f"sessions are in Redis at {server.url}"
    assert "did not answer: load: ConnectionError" in told[1][1]
    assert meanwhile in told[1][1]
    assert "serves again, after" in told[2][1]


async def test_a_redis_that_is_down_at_the_start_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    chosen = settings(url=f"redis://127.0.0.1:{free_ports(1)[0]}", when_down="fresh")
    opened = await open_store(chosen, lambda *_: None)
    assert isinstance(opened.store, FreshWhenDown)
    assert "Redis (sessions.url) did not answer: rehearsal: ConnectionError (ConnectionRefusedError)" in caplog.text
    assert await opened.store.load("id") is not None
    await opened.close()


async def test_a_server_that_is_no_redis_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """It answers every question with a number."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                writer.write(b":1\r\n" * 3)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        opened = await open_store(settings(url=url), lambda *_: None)
        assert "Redis (sessions.url) did not answer: rehearsal" in caplog.text
        await opened.close()


async def test_a_node_of_a_cluster_is_refused(tmp_path: Path) -> None:
    with redis_server("--cluster-enabled", "yes", "--dir", str(tmp_path)) as server:
        (tmp_path / "url").write_text(server.url)
        for name, value in (("url", server.url), ("url_file", str(tmp_path / "url"))):
            with pytest.raises(SettingsError, match=rf"sessions\.{name}: expected a Redis that is no cluster"):
                await open_store(settings(**{name: value}), lambda *_: None)


async def test_no_more_connections_than_the_setting_are_opened() -> None:
    """The others wait for one, and get their answers."""
    with redis_server() as server:
        opened = await open_store(settings(url=server.url, max_connections="2"), lambda *_: None)
        results = await asyncio.gather(*(opened.store.commit(Session.fresh("digest")) for _ in range(50)))
        assert results == [CommitResult.COMMITTED] * 50
        await opened.close()


@pytest.mark.parametrize("content", ["", "http://host", "redis://"])
async def test_a_file_without_a_url_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "url").write_text(content)
    with pytest.raises(SettingsError, match=r"sessions.url_file: expected a file with the URL of a Redis"):
        await open_store(settings(url_file=str(tmp_path / "url")), lambda *_: None)


@pytest.mark.parametrize("path", ["abc", "1/2", "0x1", "1 ", "-1", "%31", "//1"])
def test_a_path_that_is_no_database_is_refused(path: str) -> None:
    """The client would take database 0, or another one than the text says."""
    with pytest.raises(SettingsError, match=r"sessions.url: expected a URL whose path is the number of a database"):
        settings(url=f"redis://host/{path}")


@pytest.mark.parametrize("path", ["", "/", "/0", "/15"])
def test_a_path_may_be_a_database_or_none(path: str) -> None:
    assert settings(url=f"redis://host{path}").sessions.url is not None


@pytest.mark.parametrize("query", ["db=abc", "socket_timeout=100", "sentinel=1", "max_connections=1", "retry=1"])
async def test_a_query_that_the_client_does_not_know_or_that_overrides_a_setting_is_refused(query: str) -> None:
    with pytest.raises(SettingsError, match=r"sessions.url: expected a URL .*query") as caught:
        await open_store(settings(url=f"redis://u:{PASSWORD}@127.0.0.1:1/0?{query}"), lambda *_: None)
    assert PASSWORD not in str(caught.value)


def test_a_url_and_a_file_contradict_each_other(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"sessions\.url_file"):
        settings(url="redis://host", url_file=str(tmp_path))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"redis://:{PASSWORD}@host:6379/0", "redis://:***@host:6379/0"),
        (f"rediss://robot:{PASSWORD}@[::1]:6379", "rediss://robot:***@[::1]:6379"),
        (f"redis://host/1?password={PASSWORD}", "redis://host/1"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
        (f"unix://u:{PASSWORD}@/run/redis.sock?db=1", "unix://u:***@/run/redis.sock"),
        (f"redis://{PASSWORD}@h/0", "redis://***@h/0"),
        (f"redis://u:p@{PASSWORD}@h/0", "redis://u:***@h/0"),
    ],
)
def test_a_password_is_never_shown_in_settings(url: str, shown: str) -> None:
    loaded = load_settings(None, {"WAVSERVE_SESSIONS__URL": url})
    assert {key: value for key, value, _ in loaded.rows()}["sessions.url"] == shown
    assert PASSWORD not in repr(loaded) + str(loaded.settings)
    with pytest.raises(SettingsError) as caught:
        load_settings(None, {"WAVSERVE_SESSIONS__URL": url.replace("://", "+sentinel://")})
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"redis://u:123/{PASSWORD}@h:6379/0",
        f"redis://u:123?{PASSWORD}@h:6379/0",
        f"redis://u:{PASSWORD}",
        f"redis:u:{PASSWORD}@h",
        f"redis://h/{PASSWORD}",
        f"redis://{PASSWORD} h/0",
        f"{PASSWORD}://h/0",
    ],
)
def test_an_odd_url_shows_no_password(url: str) -> None:
    assert PASSWORD not in str(StoreUrl(url)) + repr(StoreUrl(url))
