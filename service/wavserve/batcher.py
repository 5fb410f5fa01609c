"""Joins sample groups of different plans into backend calls, earliest deadline first, and answers each exactly once.

Called by the planner and the policy; calls the backend. One dispatcher serves one device over all verbs: one call runs,
one is ready. It never waits for company: a lone robot's group leaves at once. It knows tensors and deadlines only.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wavserve.backends.base import Backend
from wavserve.errors import ArenaFull, BackendError, NotReady, StaleHandle, WavserveError
from wavserve.types import Tensors
from wavserve.verbs import VERBS, error_of

FREEING = frozenset({"release", "score", "appraise", "decode"})
"""Verbs that free arena slots or lead to it: they go before `imagine`, which fills them."""


@dataclass(frozen=True, slots=True)
class BatcherConfig:
    """Limits of one dispatcher."""

    max_rows: int
    """video samples (or other rows) in one call"""
    depth: int
    """calls handed to the backend at a time: one running, one ready"""
    arena_retry_s: float
    """how soon a full arena is tried again when none of its slots is ours to free"""


@dataclass(slots=True, eq=False)
class SampleGroup:
    """Samples of one plan that go through one verb together; tensors have no group axis yet."""

    verb: str
    tensors: Tensors
    params: Mapping[str, int] = field(default_factory=dict)
    deadline: float = math.inf
    on_call: Callable[[float, float], None] | None = None
    """told (seconds queued, seconds in the call) when the group was answered"""
    arrival: int = -1
    queued_at: float = 0.0
    future: asyncio.Future[Tensors] = field(init=False)

    @property
    def rows(self) -> int:
        name = self.tensors.get("noise_name")
        return len(name) if name is not None and name.ndim > 1 else 1

    @property
    def signature(self) -> tuple[object, ...]:
        """Groups with equal signatures may share a call."""
        shapes = tuple(sorted((name, tensor.shape) for name, tensor in self.tensors.items()))
        return self.verb, shapes, tuple(sorted(self.params.items()))

    @property
    def urgency(self) -> tuple[bool, float, int]:
        return self.verb not in FREEING, self.deadline, self.arrival


class Batcher:
    """`run` a group and get its outputs; `start` and `close` bound the dispatcher's life."""

    def __init__(
        self,
        backend: Backend,
        config: BatcherConfig,
        clock: Callable[[], float] = time.monotonic,
        on_batch: Callable[[str, int, int, float], None] = lambda verb, groups, rows, seconds: None,
    ) -> None:
        self._backend = backend
        self._config = config
        self._clock = clock
        self._on_batch = on_batch
        self._queue: list[SampleGroup] = []
        self._arrivals = itertools.count()
        self._held: set[tuple[int, int]] = set()  # arena handles given out and not yet freed
        self._arena_full = False
        self._work = asyncio.Event()
        self._calls: set[asyncio.Task[None]] = set()
        self._dispatcher: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def queue_depth(self) -> int:
        return len(self._queue)

    @property
    def slots_held(self) -> int:
        return len(self._held)

    def start(self) -> None:
        self._dispatcher = asyncio.create_task(self._dispatch(), name="batcher")

    async def close(self) -> None:
        """Stops dispatching, lets running calls end, and answers whatever is queued with NotReady."""
        self._closed = True
        if self._dispatcher is not None:
            self._dispatcher.cancel()
            await asyncio.gather(self._dispatcher, return_exceptions=True)
        await asyncio.gather(*self._calls, return_exceptions=True)
        for group in self._queue:
            self._answer(group, NotReady("the service is shutting down"))
        self._queue.clear()

    async def run(self, group: SampleGroup) -> Tensors:
        """Outputs of one group, without the group axis.

        Raises the group's typed error (BackendError and its kinds), or NotReady once closed. A full arena is not an
        error here: the group waits until slots are freed. Cancelling the caller drops the group.
        """
        self._enqueue(group)
        return await group.future

    def discard(self, handles: NDArray[np.int64]) -> None:
        """Gives back arena slots `[N, 2]` that nobody will read; safe to call for slots already released."""
        if not self._closed:
            group = SampleGroup("release", {"handles": handles})
            self._enqueue(group)
            group.future.add_done_callback(lambda future: future.cancelled() or future.exception())

    def _enqueue(self, group: SampleGroup) -> None:
        if self._closed:
            raise NotReady("the service is shutting down")
        group.future = asyncio.get_running_loop().create_future()
        group.arrival, group.queued_at = next(self._arrivals), self._clock()
        self._queue.append(group)
        self._work.set()

    async def _dispatch(self) -> None:
        free = asyncio.Semaphore(self._config.depth)
        while True:
            await free.acquire()
            while not (batch := self._pop()):
                self._work.clear()
                await self._work.wait()
            call = asyncio.create_task(self._call(batch))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
            call.add_done_callback(lambda _: free.release())

    def _pop(self) -> list[SampleGroup]:
        """The most urgent group that may run, with as many of its kind as fit; dead groups leave the queue here."""
        self._queue = [group for group in self._queue if not group.future.done()]
        ready = (group for group in self._queue if not (self._arena_full and group.verb == "imagine"))
        waiting = sorted(ready, key=lambda group: group.urgency)
        batch: list[SampleGroup] = []
        rows = 0
        for group in waiting:
            if batch and (group.signature != batch[0].signature or rows + group.rows > self._config.max_rows):
                continue
            batch.append(group)
            rows += group.rows
            if not VERBS[group.verb].joined:
                break
        taken = set(map(id, batch))
        self._queue = [group for group in self._queue if id(group) not in taken]
        return batch

    async def _call(self, batch: list[SampleGroup]) -> None:
        started = self._clock()
        verb = batch[0].verb
        answers: list[Tensors | WavserveError]
        latest = max(group.deadline for group in batch)
        running = asyncio.create_task(self._backend.run(verb, _join(batch), latest))
        for group in batch:
            group.future.add_done_callback(partial(_stop_if_unwanted, running, batch))
        await asyncio.wait([running])
        try:
            answers = _split(verb, running.result(), len(batch))
        except asyncio.CancelledError:  # as a rule because every caller is gone; the model keeps nothing of it
            answers = [BackendError(f"{verb}: the call was cancelled")] * len(batch)
        except WavserveError as error:
            answers = [error] * len(batch)
        except Exception as error:  # noqa: BLE001 - a bug below the seam must still answer every group
            failure = BackendError(f"{verb} failed: {type(error).__name__}: {error}")
            failure.__cause__ = error
            answers = [failure] * len(batch)
        ended = self._clock()
        self._on_batch(verb, len(batch), sum(group.rows for group in batch), ended - started)
        for group, answer in zip(batch, answers, strict=True):
            self._settle(group, answer)
            if group.future.done() and group.on_call is not None:
                group.on_call(started - group.queued_at, ended - started)
        self._work.set()

    def _settle(self, group: SampleGroup, answer: Tensors | WavserveError) -> None:
        """Keeps the arena's books for one outcome, then answers the group; a full arena queues it again."""
        if isinstance(answer, ArenaFull):
            self._wait_for_arena(group)
            return
        if group.verb == "imagine" and not isinstance(answer, WavserveError):
            self._held |= _names(answer["handles"])
            if group.future.done():  # cancelled while it ran: its slots have no reader
                self.discard(answer["handles"])
        if "handles" in group.tensors and _freed(group, answer):
            self._held -= _names(group.tensors["handles"])
            self._arena_full = False
        self._answer(group, answer)

    def _wait_for_arena(self, group: SampleGroup) -> None:
        self._arena_full = True
        if not group.future.done():
            self._queue.append(group)
        if not self._held:  # nobody here will free a slot: leases of others must run out
            asyncio.get_running_loop().call_later(self._config.arena_retry_s, self._reopen)

    def _reopen(self) -> None:
        self._arena_full = False
        self._work.set()

    def _answer(self, group: SampleGroup, answer: Tensors | WavserveError) -> None:
        if group.future.done():  # only its own caller may have cancelled it
            assert group.future.cancelled(), "a group was answered twice"
        elif isinstance(answer, WavserveError):
            group.future.set_exception(answer)
        else:
            group.future.set_result(answer)


def _stop_if_unwanted(running: asyncio.Task[Tensors], batch: list[SampleGroup], _: object) -> None:
    """Ends a call when the last of its groups' callers went away."""
    if all(group.future.done() for group in batch):
        running.cancel()


def _freed(group: SampleGroup, answer: Tensors | WavserveError) -> bool:
    """Whether the slots a group named are free now, or were gone already."""
    last_reader = group.verb == "decode" or (group.verb == "score" and group.params.get("release") == 1)
    return group.verb == "release" or isinstance(answer, StaleHandle) or (last_reader and isinstance(answer, Mapping))


def _names(handles: NDArray[Any]) -> set[tuple[int, int]]:
    return {(int(slot), int(generation)) for slot, generation in handles}


def _join(batch: list[SampleGroup]) -> dict[str, NDArray[Any]]:
    """Stacks groups along a new leading axis G; parameters become int32 `[G, 1]`."""
    first = batch[0]
    tensors = {name: np.stack([group.tensors[name] for group in batch]) for name in first.tensors}
    scalars = {name: np.full((len(batch), 1), value, np.int32) for name, value in first.params.items()}
    return {**tensors, **scalars}


def _split(verb: str, outputs: Tensors, groups: int) -> list[Tensors | WavserveError]:
    """Per-group outputs, or the typed error a group's status stands for. Raises BackendError on malformed outputs."""
    wrong = [name for name, tensor in outputs.items() if len(tensor) != groups]
    if wrong or (verb == "imagine" and "handles" not in outputs):
        raise BackendError(
            f"{verb}: expected outputs of {groups} groups, got malformed {', '.join(wrong) or 'handles'}"
        )
    status: Iterable[int] = outputs.get("status", np.zeros(groups, np.int32)).tolist()
    rest = {name: tensor for name, tensor in outputs.items() if name != "status"}
    return [error_of(code) or {name: tensor[g] for name, tensor in rest.items()} for g, code in enumerate(status)]
