"""Joins sample groups of different plans into backend calls, in the ledger's order, and answers each group once.

One dispatcher serves one device over all verbs. It never waits for more groups: a lone robot's group leaves at once.
Calls are short. A call waits behind a running one only if its plan is at least as urgent, so an urgent plan waits for
the running call and for no other. Every call's time goes into the cost model. Knows nothing of plans and robots.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wavserve.backends.base import Backend
from wavserve.core.errors import ArenaFull, BackendError, ModelDown, NotReady, WavserveError
from wavserve.core.types import Clock, Tensors
from wavserve.scheduling.arena_slots import HeldSlots
from wavserve.scheduling.costs import CallKind, Costs
from wavserve.scheduling.groups import SampleGroup, join, split
from wavserve.scheduling.ledger import Rank
from wavserve.scheduling.meter import Charge, HandedCall, Meter
from wavserve.system.patience import TICK_S, AwakeTime, limit_s
from wavserve.system.vital_tasks import OnDeath, VitalTask, ignore_death

log = logging.getLogger(__name__)

OnStuck = Callable[[str], None]
"""Receives the model of a call that stands still."""
OnCall = Callable[[str, int, int, float], None]
"""Receives verb, groups, rows and seconds (by the clock, from when it began to run) of every call."""


def ignore_call(verb: str, groups: int, rows: int, seconds: float) -> None:
    """An `OnCall` that does nothing."""


TURNS = 3
"""Turns of the event loop that an answered plan needs to ask for its next call."""


@dataclass(frozen=True, slots=True)
class BatcherConfig:
    """Limits of one dispatcher."""

    max_rows: int
    """video samples (or other rows) in one call"""
    workers: int
    """calls that the backend runs at once"""
    depth: int
    """calls that the backend has at a time: the running ones and those that wait behind them"""
    slice_s: float
    """how long the calls that the backend has may take together"""
    arena_retry_s: float
    """pause before a full arena is tried again while this process holds none of its slots"""
    one_call_per_model: bool = False
    """whether each model runs one call at a time, as a model in a process of its own does"""
    hang_s: float = math.inf
    """a call that runs for so long is stuck, whatever was predicted; see `patience`"""

    @property
    def call_s(self) -> float:
        """The longest that one call should take."""
        return self.slice_s / (1 + max(0, self.depth - self.workers))


class _Dispatched(NamedTuple):
    batch: list[SampleGroup]
    handed: HandedCall
    rank: Rank
    """of its most urgent plan"""


class Batcher:
    """`run` takes a group and returns its outputs; `start` and `close` start and end the dispatcher."""

    def __init__(
        self,
        backend: Backend,
        config: BatcherConfig,
        costs: Costs,
        on_call: OnCall = ignore_call,
        clock: Clock = time.monotonic,
    ) -> None:
        self._backend = backend
        self._config = config
        self._costs = costs
        self._meter = Meter(clock, config.workers, config.one_call_per_model)
        self._on_call = on_call
        self._clock = clock
        self._queue: list[SampleGroup] = []
        self._arrivals = itertools.count()
        self._slots = HeldSlots()
        self._work = asyncio.Event()
        self._calls: dict[asyncio.Task[None], _Dispatched] = {}
        self._vital: list[VitalTask] = []
        self.on_stuck: OnStuck = lambda model: None
        self._refusal: str | None = None
        """why no groups are taken any more"""

    @property
    def queue_depth(self) -> int:
        return len(self._queue)

    @property
    def slots_held(self) -> int:
        return len(self._slots)

    def start(self, on_death: OnDeath = ignore_death) -> None:
        """Begins to dispatch. `on_death` is told when the dispatcher dies; then every group gets NotReady."""

        def died(name: str) -> None:
            self._refuse_all("the batcher died")
            on_death(name)

        watch = self._watch_calls()
        self._vital = [VitalTask(self._dispatch(), "batcher", died), VitalTask(watch, "the watch of calls", died)]

    async def close(self) -> None:
        """Stops dispatching, waits for running calls, and answers queued groups with NotReady."""
        self._refusal = "the service is shutting down"
        await asyncio.gather(*(task.stop() for task in self._vital))
        await asyncio.gather(*self._calls, return_exceptions=True)
        self._refuse_all(self._refusal)

    async def run(self, group: SampleGroup) -> Tensors:
        """Outputs of one group, without the group axis.

        Raises the group's typed error (BackendError and its children; also for a malformed group), and NotReady once
        closed. A full arena is no error: the group waits until slots are free. Cancelling the caller drops the group.
        """
        self._enqueue(group)
        try:
            return await group.future
        except asyncio.CancelledError:
            self._free_unread(group)
            raise

    def discard(self, handles: NDArray[np.int64]) -> None:
        """Frees arena slots `[N, 2]` that nobody will read; slots that are free already stay so."""
        if self._refusal is None:
            group = SampleGroup("release", {"handles": handles})
            self._enqueue(group)
            group.future.add_done_callback(lambda future: future.cancelled() or future.exception())

    def _refuse_all(self, why: str) -> None:
        """Answers the queue with NotReady; later groups get it at once."""
        self._refusal = why
        for group in self._queue:
            self._answer(group, NotReady(why))
        self._queue.clear()

    def _free_unread(self, group: SampleGroup) -> None:
        """The caller was cancelled. Slots of an answer that came a moment before have no reader: they are freed."""
        answer = group.future
        if group.verb_info.allocates and answer.done() and not answer.cancelled() and answer.exception() is None:
            self.discard(answer.result()["handles"])

    def _enqueue(self, group: SampleGroup) -> None:
        if self._refusal is not None:
            raise NotReady(self._refusal)
        group.check()
        group.future = asyncio.get_running_loop().create_future()
        group.arrival, group.queued_at = next(self._arrivals), self._clock()
        self._queue.append(group)
        self._work.set()

    async def _dispatch(self) -> None:
        free = asyncio.Semaphore(self._config.depth)
        while True:
            await free.acquire()
            while not (batch := await self._next()):
                self._work.clear()
                await self._work.wait()
            handed = self._meter.hand_over(batch[0].verb_info.model)
            call = asyncio.create_task(self._call(batch, handed))
            self._calls[call] = _Dispatched(batch, handed, min(group.ticket.rank for group in batch))
            call.add_done_callback(partial(self._ended, free))

    def _ended(self, free: asyncio.Semaphore, call: asyncio.Task[None]) -> None:
        del self._calls[call]
        free.release()
        self._work.set()

    async def _next(self) -> list[SampleGroup]:
        """The groups of the next call. First the loop runs: plans answered just now can queue their next group."""
        for _ in range(TURNS if self._calls or self._queue else 0):
            await asyncio.sleep(0)
        return self._pop()

    def _pop(self) -> list[SampleGroup]:
        """The most urgent group that may run, joined by as many of the same signature as fit.

        Groups whose caller is gone leave the queue here.
        """
        self._queue = [group for group in self._queue if not group.future.done()]
        ready = (group for group in self._queue if not (self._slots.arena_full and group.verb_info.allocates))
        waiting = sorted(ready, key=lambda group: group.dispatch_order)
        first = next(filter(self._may_dispatch, waiting), None)
        if first is None:
            return []
        rows = 0
        batch: list[SampleGroup] = []
        for group in waiting[waiting.index(first) :]:
            if batch and (group.signature != first.signature or not self._fits(first.kind, rows + group.rows)):
                continue
            batch.append(group)
            rows += group.rows
            if not first.verb_info.joinable:
                break
        taken = set(map(id, batch))
        self._queue = [group for group in self._queue if id(group) not in taken]
        return batch

    def _may_dispatch(self, group: SampleGroup) -> bool:
        """Whether the group would run at once, or wait only behind calls of plans that are at most as urgent.

        A busy backend gets no call that would delay the next call of a more urgent plan.
        """
        if not group.verb_info.computes:
            return True
        if self._meter.starts_at_once(group.verb_info.model):
            return True
        is_room = len(self._meter.waiting) < self._config.depth - self._config.workers
        return is_room and group.ticket.rank <= min(call.rank for call in self._calls.values())

    def _fits(self, kind: CallKind, rows: int) -> bool:
        return rows <= self._config.max_rows and self._costs.fits(kind, rows, self._config.call_s)

    async def _call(self, batch: list[SampleGroup], handed: HandedCall) -> None:
        """Makes one call and answers its groups. A bug in the accounts fails this call alone, or not even that."""
        answers = await self._outcome(batch)
        charge = self._meter.end(handed)
        began = self._clock() - charge.run_s
        for group, answer in zip(batch, answers, strict=True):
            try:
                self._settle(group, answer)
                if group.future.done() and group.on_call is not None:
                    group.on_call(began - group.queued_at, charge.run_s)
            except Exception as error:
                log.exception("%s: a call could not be accounted for", group.verb)
                if not group.future.done():
                    self._answer(group, _failed(group.verb, error))
        try:
            self._account(batch, answers, charge)
            self._on_call(batch[0].verb, len(batch), sum(group.rows for group in batch), charge.run_s)
        except Exception:
            log.exception("%s: a call could not be accounted for", batch[0].verb)

    async def _outcome(self, batch: list[SampleGroup]) -> list[Tensors | WavserveError]:
        """Each group's outputs or typed error."""
        verb = batch[0].verb
        running = asyncio.create_task(self._run(batch))
        if not batch[0].verb_info.allocates:  # a call that allocates is never cancelled: its slots would leak
            for group in batch:
                group.future.add_done_callback(partial(_stop_if_unwanted, running, batch))
        await asyncio.wait([running])
        try:
            return split(verb, running.result(), len(batch))
        except asyncio.CancelledError:  # mostly because every caller is gone; the model keeps nothing of the call
            return [BackendError(f"{verb}: the call was cancelled")] * len(batch)
        except WavserveError as error:
            return [error] * len(batch)
        except Exception as error:
            log.exception("%s: a call failed", verb)
            return [_failed(verb, error)] * len(batch)

    async def _watch_calls(self) -> None:
        awake = AwakeTime(self._clock)
        while True:
            await asyncio.sleep(TICK_S)
            self.judge_calls(awake.tick())

    def judge_calls(self, seconds: float) -> None:
        """Gives up the calls that stand still, so that their plans wait no longer."""
        for batch, handed, _ in list(self._calls.values()):
            if handed.runs and not handed.stuck:
                handed.awake_s += seconds
                handed.stuck = handed.awake_s > self._limit_s(batch)
                if handed.stuck:
                    self._give_up(batch, handed)

    def _limit_s(self, batch: list[SampleGroup]) -> float:
        """How long a call may run. A kind that ran once at most may still have something to load."""
        kind, rows = batch[0].kind, sum(group.rows for group in batch)
        if self._costs.num_calls(kind) < 2:
            return self._config.hang_s
        return limit_s(max(self._costs.seconds(kind, rows), self._costs.wall_s(kind)), self._config.hang_s)

    def _give_up(self, batch: list[SampleGroup], handed: HandedCall) -> None:
        log.error("%s: no answer to %s for %.1f s, much longer than usual", handed.model, batch[0].verb, handed.awake_s)
        self.on_stuck(handed.model)
        for group in batch:  # the backend's call is cancelled with its last caller, unless it allocates
            if not group.future.done():
                self._answer(group, ModelDown(f"{handed.model}: no answer for {handed.awake_s:.1f} s"))

    async def _run(self, batch: list[SampleGroup]) -> Tensors:
        # a call that allocates is short, and is not cut at a deadline: see `_call`
        latest = math.inf if batch[0].verb_info.allocates else max(group.ticket.deadline for group in batch)
        return await self._backend.run(batch[0].verb, join(batch), latest)

    def _account(self, batch: list[SampleGroup], answers: Sequence[Tensors | WavserveError], charge: Charge) -> None:
        """Charges the plans of a call with its device seconds; a call without a failed group updates the cost model.

        A failed group is charged too, and its work stays part of the plan's remaining work.
        """
        kind, rows = batch[0].kind, sum(group.rows for group in batch)
        failed = [isinstance(answer, WavserveError) for answer in answers]
        for group, has_failed in zip(batch, failed, strict=True):
            predicted_s = 0.0 if has_failed else self._costs.seconds(kind, group.rows)
            group.ticket.charge(predicted_s, charge.used_s * group.rows / rows)
        if not any(failed) and charge.ran:
            self._costs.measured(kind, rows, charge.used_s, charge.run_s)

    def _settle(self, group: SampleGroup, answer: Tensors | WavserveError) -> None:
        """Updates the held slots and answers the group; a full arena queues the group again."""
        if isinstance(answer, ArenaFull):
            self._wait_for_arena(group)
            return
        self._slots.note(group, answer)
        if group.verb_info.allocates and not isinstance(answer, WavserveError) and group.future.done():
            self.discard(answer["handles"])  # cancelled while it ran: its slots have no reader
        self._answer(group, answer)

    def _wait_for_arena(self, group: SampleGroup) -> None:
        self._slots.arena_full = True
        if not group.future.done():
            self._queue.append(group)
        if not self._slots:  # no plan here will free a slot: leases of others must expire
            asyncio.get_running_loop().call_later(self._config.arena_retry_s, self._reopen)

    def _reopen(self) -> None:
        self._slots.arena_full = False
        self._work.set()

    def _answer(self, group: SampleGroup, answer: Tensors | WavserveError) -> None:
        if group.future.done():  # its own caller cancelled it, or its call was stuck
            is_given_up = group.future.cancelled() or isinstance(group.future.exception(), ModelDown)
            assert is_given_up, "a group was answered twice"
        elif isinstance(answer, WavserveError):
            group.future.set_exception(answer)
        else:
            group.future.set_result(answer)


def _stop_if_unwanted(running: asyncio.Task[Tensors], batch: list[SampleGroup], _: object) -> None:
    """Cancels a call when the last caller of its groups is gone."""
    if all(group.future.done() for group in batch):
        running.cancel()


def _failed(verb: str, error: Exception) -> BackendError:
    """What the callers of a call get when it met a bug."""
    failure = BackendError(f"{verb} failed: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure
