"""The backends under test: the fake, the models in this process, and the models in a real Triton."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

import pytest

from tests.backends.rig import REPOSITORY, RunningTriton, Subject, fake, local, triton
from wavserve.backends.triton.wheel import find_obstacle
from wavserve.bundle.bundle import Bundle


@pytest.fixture(scope="session")
async def running_triton(tiny: Bundle) -> AsyncIterator[RunningTriton]:
    if (obstacle := find_obstacle(REPOSITORY)) is not None:
        pytest.skip(f"no real Triton on this machine: {obstacle}")
    async with triton(tiny) as running:
        yield running


@pytest.fixture(scope="module")
async def reference(tiny: Bundle) -> AsyncIterator[Subject]:
    """The models in this process, as the reference for other backends."""
    async with local(tiny) as expected:
        yield expected


@pytest.fixture(params=["fake", "local", "triton"])
def hosted(request: pytest.FixtureRequest, tiny: Bundle) -> AbstractAsyncContextManager[Subject]:
    """A backend of each kind, not opened yet. This is apart from `subject`, because only a sync fixture may get another
    by name."""
    if request.param == "triton":
        running: RunningTriton = request.getfixturevalue("running_triton")
        return running.subject()
    return {"fake": fake, "local": local}[request.param](tiny)


@pytest.fixture
async def subject(hosted: AbstractAsyncContextManager[Subject]) -> AsyncIterator[Subject]:
    async with hosted as opened:
        yield opened
