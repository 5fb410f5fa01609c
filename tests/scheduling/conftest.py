"""Clocks, admissions, backends and batchers of the scheduling tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from tests.clock import ManualClock
from tests.scheduling.echo import Echo, StartBatcher, running_batcher
from wavserve.scheduling.admission import Admission


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def admission(clock: ManualClock) -> Admission:
    """The admission of an idle device, where no plan waits for a running call."""
    return Admission(clock=clock)


@pytest.fixture
def echo() -> Echo:
    """A backend that answers at once."""
    return Echo()


@pytest.fixture
def gated() -> Echo:
    """A backend whose calls wait until the test lets them through."""
    return Echo(gated=True)


@pytest.fixture
async def start_batcher() -> AsyncIterator[StartBatcher]:
    """Starts batchers as `running_batcher` does; they are closed when the test ends."""
    async with AsyncExitStack() as batchers:
        yield lambda *args, **kwargs: batchers.enter_async_context(running_batcher(*args, **kwargs))
