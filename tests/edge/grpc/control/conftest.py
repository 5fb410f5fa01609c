"""A server over a fake backend for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.edge.grpc.control.links import Server, serving_rig


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving_rig() as (server, _):
        yield server
