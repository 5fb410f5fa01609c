"""What every test has: async tests and fixtures run on asyncio, as the service does; and one `tiny` bundle."""

from __future__ import annotations

import pytest

from wavserve.bundle.bundle import Bundle
from wavserve.models.weights import presets


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return presets.create("tiny", tmp_path_factory.mktemp("bundles") / "tiny")
