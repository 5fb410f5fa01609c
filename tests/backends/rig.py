"""The backends under test, and calls to them by the signature table."""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.backends.calls import N, denoise_inputs, example_inputs
from wavserve.backends.base import Backend
from wavserve.backends.fake import FakeBackend
from wavserve.backends.local import LocalBackend
from wavserve.backends.triton.client import TritonBackend
from wavserve.backends.triton.server import ServerConfig, TritonServer, new_name
from wavserve.bundle.bundle import Bundle
from wavserve.core.spec import PolicySpec
from wavserve.core.types import Tensors
from wavserve.core.verbs import MODELS, GroupStatus
from wavserve.models.arena import slabs
from wavserve.models.arena.book import ArenaBook, Cells
from wavserve.models.runners.loading import RunnerConfig, load_runners

REPOSITORY = Path(__file__).parents[2] / "model_repository"
SLOTS = 6
MAX_TEXTS = 4
TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Subject:
    """A backend and the policy it serves; `used` counts the arena slots in use."""

    kind: str
    backend: Backend
    spec: PolicySpec
    used: Callable[[], Awaitable[int]]

    async def run(self, verb: str, inputs: Tensors, deadline: float = math.inf) -> Tensors:
        """One call. Raises TimeoutError when it takes longer than `TIMEOUT_S`."""
        return await asyncio.wait_for(self.backend.run(verb, inputs, deadline), TIMEOUT_S)

    async def imagine(self, groups: int = 1, samples: int = N) -> np.ndarray:
        """Handles `[groups, samples, 2]` of imagined samples."""
        inputs = example_inputs(self.spec, "imagine", groups)
        inputs = {**inputs, "noise_name": np.array([[[0, n] for n in range(samples)]] * groups)}
        outputs = await self.run("imagine", inputs)
        assert outputs["status"].tolist() == [GroupStatus.OK] * groups
        return outputs["handles"]


@asynccontextmanager
async def local(tiny: Bundle) -> AsyncIterator[Subject]:
    loaded = load_runners(tiny, RunnerConfig("cpu", "float32", 1, SLOTS, lease_s=1e9, max_texts=MAX_TEXTS))
    backend = LocalBackend(loaded.runners)
    yield Subject("local", backend, tiny.spec, used_of(loaded.arena.book))
    await backend.close()


@asynccontextmanager
async def fake(tiny: Bundle) -> AsyncIterator[Subject]:
    """A backend without models. A call takes 20 ms, so that a test can cancel it."""
    book = ArenaBook(SLOTS, lease_s=1e9)
    backend = FakeBackend(tiny.spec, book, before=lambda verb: asyncio.sleep(0.02))
    yield Subject("fake", backend, tiny.spec, used_of(book))


def used_of(book: ArenaBook) -> Callable[[], Awaitable[int]]:
    async def used() -> int:
        return book.used

    return used


@dataclass(frozen=True)
class RunningTriton:
    """A real server with the tiny bundle, for all tests of a session."""

    server: TritonServer
    name: str
    url: str
    backend: TritonBackend
    tiny: Bundle

    @asynccontextmanager
    async def subject(self) -> AsyncIterator[Subject]:
        """The server's models with every slot free, and without the texts that tests use in their caches."""
        await self._forget()
        yield Subject("triton", self.backend, self.tiny.spec, self.used)

    @property
    def pid(self) -> int:
        """Of the reaper, the parent of the server and its models."""
        assert self.server.pid is not None
        return self.server.pid

    def kill(self) -> None:
        """Ends the server at once, as a failing machine would."""
        self.server.kill()

    async def used(self) -> int:
        arena = (await self.backend.describe("video_dit", TIMEOUT_S)).arena
        assert arena is not None
        return arena["used"]

    async def _forget(self) -> None:
        """Releases all slots, and evicts all texts by four that no test uses."""
        prefix, _, epoch = (await self._slab()).name.rpartition("-")
        slab = slabs.attach(prefix, int(epoch, 16))
        assert slab is not None
        generations = Cells.over(slab.memory, SLOTS, slabs.HEADER).generation.copy()
        handles = np.stack([np.arange(SLOTS), generations], axis=1)[None]
        await self.backend.run("release", {"handles": handles})
        for text in range(MAX_TEXTS):
            inputs = dict(denoise_inputs(self.tiny.spec), text_key=np.full((1, 32), 250 + text, np.uint8))
            await self.backend.run("denoise", inputs)

    async def _slab(self) -> Path:
        """The living arena's file. The file of an unloaded model disappears a moment after the unload."""
        async with asyncio.timeout(TIMEOUT_S):
            while len(found := list(slabs.SHM.glob(f"{self.name}-{'[0-9a-f]' * 8}"))) > 1:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        [path] = found
        return path


@asynccontextmanager
async def triton(tiny: Bundle) -> AsyncIterator[RunningTriton]:
    name = new_name()
    own = {
        "WAVSERVE_BUNDLE__PATH": str(tiny.folder),
        "WAVSERVE_ARENA__NUM_SLOTS": str(SLOTS),
        "WAVSERVE_PLANNER__SLICE_SIZE": str(SLOTS),
        "WAVSERVE_ARENA__LEASE_S": "1e9",
        "WAVSERVE_ARENA__PREFIX": name,
        "WAVSERVE_BACKEND__MAX_CACHED_TEXTS": str(MAX_TEXTS),
        "WAVSERVE_BACKEND__THREADS": "1",
        "WAVSERVE_BACKEND__COMPILE": "off",
    }
    server = TritonServer(ServerConfig(name, REPOSITORY, {**os.environ, **own}, shm_bytes=4 << 20))
    backend = TritonBackend(url := await server.start())
    try:
        await asyncio.gather(*(backend.load(model, TIMEOUT_S) for model in MODELS))
        yield RunningTriton(server, name, url, backend, tiny)
    finally:
        await backend.close()
        if not server.running:
            logging.getLogger(__name__).warning("%s had ended: %s", name, server.tail())
        await server.stop()
