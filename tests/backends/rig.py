"""The backends under one contract: each test runs on all of them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from wavserve.backends.base import Backend
from wavserve.backends.fake import FakeBackend
from wavserve.backends.local import LocalBackend
from wavserve.backends.triton.client import TritonBackend
from wavserve.backends.triton.server import ServerConfig, TritonServer, new_name
from wavserve.bundle.bundle import Bundle
from wavserve.core.spec import PolicySpec
from wavserve.core.types import Tensors
from wavserve.core.verbs import MODELS
from wavserve.models.arena import slabs
from wavserve.models.arena.book import ArenaBook, Cells
from wavserve.models.runners.loading import RunnerConfig, load_runners

T = TypeVar("T")

REPOSITORY = Path(__file__).parents[2] / "model_repository"
SLOTS = 6
MAX_TEXTS = 4
TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Subject:
    """A backend in a loop of its own, the policy it serves, and how many arena slots it has in use."""

    kind: str
    backend: Backend
    spec: PolicySpec
    used: Callable[[], int]
    loop: asyncio.Runner

    def run(self, verb: str, inputs: Tensors) -> Tensors:
        return self.do(self.backend.run(verb, inputs))

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Something asynchronous, with an end to it."""
        return self.loop.run(asyncio.wait_for(work, TIMEOUT_S))


@contextmanager
def local(tiny: Bundle) -> Iterator[Subject]:
    loaded = load_runners(tiny, RunnerConfig("cpu", "float32", 2, SLOTS, lease_s=1e9, max_texts=MAX_TEXTS))
    backend = LocalBackend(loaded.runners)
    with asyncio.Runner() as loop:
        yield Subject("local", backend, tiny.spec, lambda: loaded.arena.book.used, loop)
        loop.run(backend.close())


@contextmanager
def fake(tiny: Bundle) -> Iterator[Subject]:
    """Numpy; a call takes a moment, so that it can be given up."""
    book = ArenaBook(SLOTS, lease_s=1e9)
    backend = FakeBackend(tiny.spec, book, before=lambda verb: asyncio.sleep(0.02))
    with asyncio.Runner() as loop:
        yield Subject("fake", backend, tiny.spec, lambda: book.used, loop)


@dataclass(frozen=True)
class RunningTriton:
    """A real server with the tiny bundle, for all tests of a session."""

    server: TritonServer
    name: str
    url: str
    backend: TritonBackend
    tiny: Bundle
    loop: asyncio.Runner

    def subject(self) -> Subject:
        """As good as new: every slot free, and no text known that a test may use."""
        self._forget()
        return Subject("triton", self.backend, self.tiny.spec, self.used, self.loop)

    @property
    def pid(self) -> int:
        """Of what stands before the server and its models."""
        assert self.server.pid is not None
        return self.server.pid

    def kill(self) -> None:
        """As a machine that fails."""
        self.server.kill()
        self.loop.run(self.server.wait())

    def used(self) -> int:
        arena = self.loop.run(self.backend.describe("video_dit", TIMEOUT_S)).arena
        assert arena is not None
        return arena["used"]

    def _forget(self) -> None:
        prefix, _, epoch = self._slab().name.rpartition("-")
        slab = slabs.attach(prefix, int(epoch, 16))
        assert slab is not None
        generations = Cells.over(slab.memory, SLOTS, slabs.HEADER).generation.copy()
        handles = np.stack([np.arange(SLOTS), generations], axis=1)[None]
        self.loop.run(self.backend.run("release", {"handles": handles}))
        for text in range(MAX_TEXTS):
            inputs = dict(denoise_inputs(self.tiny.spec), text_key=np.full((1, 32), 250 + text, np.uint8))
            self.loop.run(self.backend.run("denoise", inputs))

    def _slab(self) -> Path:
        """The living arena's file; one of a model just unloaded goes with its process, a moment after the answer."""
        until = time.monotonic() + TIMEOUT_S
        while len(found := list(slabs.SHM.glob(f"{self.name}-{'[0-9a-f]' * 8}"))) > 1 and time.monotonic() < until:
            time.sleep(0.05)
        [path] = found
        return path


@contextmanager
def triton(tiny: Bundle) -> Iterator[RunningTriton]:
    name = new_name()
    own = {
        "WAVSERVE_BUNDLE__PATH": str(tiny.folder),
        "WAVSERVE_ARENA__NUM_SLOTS": str(SLOTS),
        "WAVSERVE_PLANNER__SLICE_SIZE": str(SLOTS),
        "WAVSERVE_ARENA__LEASE_S": "1e9",
        "WAVSERVE_ARENA__PREFIX": name,
        "WAVSERVE_BACKEND__MAX_CACHED_TEXTS": str(MAX_TEXTS),
        "WAVSERVE_BACKEND__THREADS": "2",
        "WAVSERVE_BACKEND__COMPILE": "off",
    }
    server = TritonServer(ServerConfig(name, REPOSITORY, {**os.environ, **own}, shm_bytes=4 << 20))
    with asyncio.Runner() as loop:
        url = loop.run(server.start())
        backend = TritonBackend(url)
        try:
            loop.run(_load_all(backend))
            yield RunningTriton(server, name, url, backend, tiny, loop)
        finally:
            loop.run(backend.close())
            loop.run(server.stop())


async def _load_all(backend: TritonBackend) -> None:
    await asyncio.gather(*(backend.load(model, TIMEOUT_S) for model in MODELS))


def denoise_inputs(spec: PolicySpec) -> Tensors:
    video, latent = spec.model.video, spec.latent
    frame = (video.in_channels, latent.num_future_frames, latent.height, latent.width)
    memory = (1, spec.num_views, video.in_channels, latent.num_memory_frames, latent.height, latent.width)
    return {
        "memory": seeded(memory, 0),
        "mean": np.zeros((1, 1, *frame), np.float32),
        "std": np.ones((1, 1, *frame), np.float32),
        "text_key": np.zeros((1, 32), np.uint8),
        "noise_key": np.zeros((1, 2), np.int64),
        "noise_name": np.zeros((1, 1, 2), np.int64),
        "flow_steps": np.ones((1, 1), np.int32),
        "embedding": seeded((1, 5, video.caption_channels), 0),
    }


def seeded(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
