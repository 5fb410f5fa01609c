"""Rigs of the planner's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from tests.planning.rig import MakeRig, Rig, RigOptions, rigged


@pytest.fixture
async def make_rig() -> AsyncIterator[MakeRig]:
    """Makes rigs with options; they are closed when the test ends."""
    async with AsyncExitStack() as rigs:
        yield lambda options: rigs.enter_async_context(rigged(options))


@pytest.fixture
async def rig(make_rig: MakeRig) -> Rig:
    """A rig with the default options."""
    return await make_rig(RigOptions())
