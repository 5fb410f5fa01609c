"""Every test here runs on every backend."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from backend_rig import Subject, make_fake, make_local

from wavserve.bundle import Bundle
from wavserve.models import presets


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return presets.create("tiny", tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(params=[make_fake, make_local], ids=["fake", "local"])
def subject(request: pytest.FixtureRequest, tiny: Bundle) -> Iterator[Subject]:
    made: Subject = request.param(tiny)
    yield made
    asyncio.run(made.backend.close())
