"""A backend that echoes its inputs, and batchers over it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import numpy as np

from tests.clock import yield_to_loop
from tests.planning.rig import CLOSE_S
from wavserve.backends.base import Backend
from wavserve.core.types import Clock, Tensors
from wavserve.core.verbs import VERBS
from wavserve.scheduling.batcher import Batcher
from wavserve.scheduling.batcher_config import BatcherConfig
from wavserve.scheduling.costs import Costs
from wavserve.scheduling.groups import SampleGroup
from wavserve.scheduling.ledger import Ticket


class Echo:
    """A backend that returns `x`. When `gated`, each call waits until `step` lets it through."""

    def __init__(self, gated: bool = False) -> None:
        self.calls: list[tuple[str, list[int]]] = []
        """verb and `x` of every call, in order"""
        self.deadlines: list[float] = []
        self.cancelled: list[int] = []
        """`x` of cancelled calls"""
        self.failures: dict[int, Exception] = {}
        """what a call raises whose first `x` is the key"""
        self._gate = asyncio.Semaphore(0 if gated else 10**9)

    def step(self, calls: int = 1) -> None:
        """Lets `calls` calls through."""
        for _ in range(calls):
            self._gate.release()

    async def run(self, verb: str, inputs: Tensors, deadline: float = 0.0) -> Tensors:
        x = inputs["x"] if "x" in inputs else inputs["handles"][:, 0, 1]
        self.calls.append((verb, x.tolist()))
        self.deadlines.append(deadline)
        try:
            await self._gate.acquire()
        except asyncio.CancelledError:
            self.cancelled += x.tolist()
            raise
        if failure := self.failures.get(int(x[0])):
            raise failure
        outputs = {"x": x, "status": np.zeros(len(x), np.int32)}
        if verb == "imagine":
            outputs["handles"] = np.stack([np.zeros_like(x), x], axis=-1)[:, None]
        return outputs

    async def close(self) -> None:
        pass

    @property
    def batches(self) -> list[list[int]]:
        """`x` of every call, in order."""
        return [x for _, x in self.calls]


def group(x: int, verb: str = "denoise", ticket: Ticket | None = None, **params: int) -> SampleGroup:
    """A group of one row; a verb that reads arena slots gets slot 0 in generation `x`."""
    tensors = {"x": np.array(x)}
    if VERBS[verb].takes_handles:
        tensors["handles"] = np.array([[0, x]])
    return SampleGroup(verb, tensors, params, ticket or Ticket())


def due(moment: float) -> Ticket:
    return Ticket(deadline=moment, due=moment)


def limits(
    *, rows: int = 4, workers: int = 1, depth: int = 1, slice_s: float = 60.0, one_call_per_model: bool = False
) -> BatcherConfig:
    """By default one call at a time, of at most four rows."""
    return BatcherConfig(rows, workers, depth, slice_s, arena_retry_s=0.001, one_call_per_model=one_call_per_model)


StartBatcher = Callable[..., Awaitable[Batcher]]
"""With the arguments of `running_batcher`."""


@asynccontextmanager
async def running_batcher(
    backend: Backend, config: BatcherConfig | None = None, costs: Costs | None = None, clock: Clock = time.monotonic
) -> AsyncIterator[Batcher]:
    """A batcher that runs until the block ends."""
    batcher = Batcher(backend, config or limits(), costs or Costs(clock), clock=clock)
    batcher.start()
    try:
        yield batcher
    finally:
        async with asyncio.timeout(CLOSE_S):
            await batcher.close()


async def submit(batcher: Batcher, *groups: SampleGroup) -> list[asyncio.Future[Tensors]]:
    """Asks for all groups in this order, and waits until the batcher has made the calls that it may make now."""
    answers = [asyncio.ensure_future(batcher.run(group)) for group in groups]
    await yield_to_loop(30)
    return answers
