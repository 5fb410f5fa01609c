"""What every test has: async tests and fixtures run on asyncio, as the service does; no proxies; a bundle of each small
preset.
"""

from __future__ import annotations

import os

import pytest

from wavserve.bundle.bundle import Bundle
from wavserve.models.weights import presets

_PROXIES = ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy", "no_proxy")


def pytest_configure() -> None:
    """Forgets the proxies of the machine: the clients that tests write themselves use them by default."""
    for name in _PROXIES:
        os.environ.pop(name, None)
        os.environ.pop(name.upper(), None)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return presets.create("tiny", tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def tiny_piper(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return presets.create("tiny-piper", tmp_path_factory.mktemp("bundles") / "tiny-piper")
