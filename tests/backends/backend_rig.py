"""The backends under one contract: each test runs on all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from wavserve import bundle
from wavserve.backends.base import Backend
from wavserve.backends.fake import FakeBackend
from wavserve.backends.local import LocalBackend
from wavserve.bundle import Bundle
from wavserve.models.arena_book import ArenaBook
from wavserve.models.loading import RunnerConfig, load_runners
from wavserve.spec import PolicySpec
from wavserve.types import Tensors

SLOTS = 6


@dataclass(frozen=True)
class Subject:
    """A backend, asked synchronously, and the policy it serves."""

    backend: Backend
    spec: PolicySpec
    used: Callable[[], int]

    def run(self, verb: str, inputs: Tensors) -> Tensors:
        return asyncio.run(self.backend.run(verb, inputs))


def make_local(tiny: Bundle) -> Subject:
    loaded = load_runners(tiny, RunnerConfig("cpu", "float32", 2, SLOTS, lease_s=1e9, max_texts=4))
    return Subject(LocalBackend(loaded.runners, bundle.digest(tiny.folder)), tiny.spec, lambda: loaded.arena.book.used)


def make_fake(tiny: Bundle) -> Subject:
    book = ArenaBook(SLOTS, lease_s=1e9)
    return Subject(FakeBackend(tiny.spec, book), tiny.spec, lambda: book.used)


def seeded(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
