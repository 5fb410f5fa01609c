"""The slow backend: every call waits, calls wait in parallel, and the backend below receives them unchanged."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass, field

import numpy as np

from loadtest.robots.slow_service import SlowBackend
from wavserve.core.types import Tensors


@dataclass
class Echo:
    calls: list[tuple[str, float]] = field(default_factory=list)
    closed: bool = False

    async def run(self, verb: str, inputs: Tensors, deadline: float = math.inf) -> Tensors:
        self.calls.append((verb, deadline))
        return inputs

    async def close(self) -> None:
        self.closed = True


async def test_calls_wait_in_parallel() -> None:
    echo = Echo()
    slow = SlowBackend(echo, wait_s=0.5)
    began = time.monotonic()
    got = await asyncio.gather(*(slow.run("score", {"x": np.full(1, n)}, 5.0) for n in range(8)))
    elapsed = time.monotonic() - began
    await slow.close()
    assert echo.calls == [("score", 5.0)] * 8
    assert [int(one["x"][0]) for one in got] == list(range(8))
    assert 0.49 < elapsed < 3.9  # in turn it would be 4
    assert echo.closed
