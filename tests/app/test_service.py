"""The assembly of a service: what is open when it fails, and what is closed when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from loadtest.redis_server import redis_server
from wavserve.app.service import assemble
from wavserve.app.settings import Settings
from wavserve.backends.base import Backend
from wavserve.bundle.bundle import Bundle
from wavserve.core.errors import SettingsError
from wavserve.system.telemetry import Metrics


@contextmanager
def nothing_left() -> Iterator[None]:
    """Fails when a task that began within the block goes on behind it: watches and dispatchers do until they are
    closed."""
    before = asyncio.all_tasks()
    yield
    assert not asyncio.all_tasks() - before


def settings(tiny: Bundle, **sections: dict[str, str]) -> Settings:
    facts: dict[str, dict[str, str]] = {"bundle": {"path": str(tiny.folder)}}
    facts["backend"] = {"kind": "local", "dtype": "float32", "compile": "off"}
    return Settings.model_validate({**facts, **sections})


async def test_a_service_that_ends_leaves_nothing_running(tiny: Bundle) -> None:
    with nothing_left():
        service = await assemble(settings(tiny))
        await service.close()


async def test_an_error_after_the_models_are_loaded_closes_them(tiny: Bundle) -> None:
    """Here the metrics are another service's, which has described its build already."""
    taken = Metrics()
    taken.describe_build({})
    with nothing_left(), pytest.raises(ValueError, match="Duplicated"):
        await assemble(settings(tiny), metrics=taken)


@pytest.mark.parametrize("content", [None, "", "http://host", "redis://host/abc"])
async def test_sessions_that_cannot_be_opened_are_refused_before_a_model_is_loaded(
    tiny: Bundle, tmp_path: Path, content: str | None
) -> None:
    loaded: list[Backend] = []

    def note(backend: Backend) -> Backend:
        loaded.append(backend)
        return backend

    if content is not None:
        (tmp_path / "url").write_text(content)
    with nothing_left(), pytest.raises(SettingsError, match="url_file"):
        await assemble(settings(tiny, sessions={"url_file": str(tmp_path / "url")}), note)
    assert loaded == []


async def test_a_redis_that_refuses_the_password_ends_the_start_before_a_model_is_loaded(tiny: Bundle) -> None:
    loaded: list[Backend] = []

    def note(backend: Backend) -> Backend:
        loaded.append(backend)
        return backend

    refused = pytest.raises(SettingsError, match="refused the user or password")
    with redis_server("--requirepass", "another") as server, nothing_left(), refused:
        await assemble(settings(tiny, sessions={"url": server.url}), note)
    assert loaded == []


async def test_models_that_cannot_be_made_a_device_are_closed(tiny: Bundle) -> None:
    def fail(backend: Backend) -> Backend:
        raise ValueError("a bug")

    with nothing_left(), pytest.raises(ValueError, match="a bug"):
        await assemble(settings(tiny), fail)
