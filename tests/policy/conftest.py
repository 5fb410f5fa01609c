"""Rigs of the policy's tests, and a time limit for each test."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from tests.planning.rig import MakeRig, Rig, RigOptions, rigged

TEST_S = 20.0


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    """An async test that hangs fails after TEST_S: a plan that is never answered must not hang the run."""
    test = pyfuncitem.obj
    if not inspect.iscoroutinefunction(test):
        return

    @functools.wraps(test)
    async def limited(**fixtures: object) -> None:
        async with asyncio.timeout(TEST_S):
            await test(**fixtures)

    pyfuncitem.obj = limited


@pytest.fixture
async def make_rig() -> AsyncIterator[MakeRig]:
    """Makes rigs with options; they are closed when the test ends."""
    async with AsyncExitStack() as rigs:
        yield lambda options: rigs.enter_async_context(rigged(options))


@pytest.fixture
async def rig(make_rig: MakeRig) -> Rig:
    """A rig with the default options."""
    return await make_rig(RigOptions())
