"""What every test has: async tests and fixtures run on asyncio, as the service does; no proxies; a bundle of each small
preset.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from wavserve.bundle.bundle import Bundle
from wavserve.models.weights import presets

_PROXIES = ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy", "no_proxy")
SERVICES = Path(__file__).parent / "service"


def pytest_configure(config: pytest.Config) -> None:
    """Forgets the proxies of the machine: the clients that tests write themselves use them by default.

    Divides the cores among the workers (`make test WORKERS=2`) and what they start. More threads than cores are slower.
    """
    for name in _PROXIES:
        os.environ.pop(name, None)
        os.environ.pop(name.upper(), None)
    if workers := config.getoption("numprocesses", None):
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // workers)))


def pytest_itemcollected(item: pytest.Item) -> None:
    """Gives the tests of a document's operations ids of their own, which Schemathesis does not."""
    if label := getattr(item, "operation_label", None):
        item._id = item._id.with_params(label)  # pytest has no public name for it


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Workers, where there are some, begin with the tests of services. Those take longest, and the rest evens out.

    Two tests with one id end the run: workers would run only one of them, and say nothing.
    """
    if twice := [name for name, count in Counter(item.nodeid for item in items).items() if count > 1]:
        raise pytest.UsageError(f"test ids: expected each once, got more of {twice[:3]}")
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: SERVICES not in item.path.parents)


class Loop(asyncio.SelectorEventLoop):
    """A loop that forgives gRPC one error.

    gRPC has one queue of completions for all loops of a process, and whichever loop reads it hands each to its own. One
    for a loop that ended with an earlier test, with a call under way, raises in the loop of the test that runs now.
    """

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        is_grpcs = str(context.get("message")).startswith("Exception in callback PollerCompletionQueue._handle_events")
        if not (is_grpcs and str(context.get("exception")) == "Event loop is closed"):
            super().call_exception_handler(context)


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": Loop}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return presets.create("tiny", tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def tiny_piper(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return presets.create("tiny-piper", tmp_path_factory.mktemp("bundles") / "tiny-piper")
