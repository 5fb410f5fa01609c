"""Joins sample groups of different plans into backend calls, in the ledger's order, and answers each group once.

One dispatcher serves one device over all verbs. It never waits for more groups: a lone robot's group leaves at once.
Calls are short. A call waits behind a running one only if its plan is at least as urgent, so an urgent plan waits for
the running call and for no other. Every call's time goes into the cost model. Knows nothing of plans and robots.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from wavserve.backends.base import Backend
from wavserve.core import tracing
from wavserve.core.errors import ArenaFull, CallStuck, NotReady, WavserveError
from wavserve.core.types import Clock, Tensors
from wavserve.scheduling.arena_slots import ArenaWaits, HeldSlots
from wavserve.scheduling.batcher_config import BatcherConfig, OnCall, OnStuck, ignore_call
from wavserve.scheduling.calls import Answer, Call, choose, failed
from wavserve.scheduling.costs import CallKind, Costs
from wavserve.scheduling.groups import SampleGroup
from wavserve.scheduling.meter import Charge, Meter
from wavserve.scheduling.stuck_calls import StuckCalls
from wavserve.system.stalls import TICK_S, AwakeTime
from wavserve.system.vital_tasks import OnDeath, VitalTask, ignore_death

log = logging.getLogger(__name__)

TURNS = 3
"""Turns of the event loop that an answered plan needs to ask for its next call."""


def closed() -> WavserveError:
    """What a group gets from the batcher of a service that ends."""
    return NotReady("the service is shutting down")


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
        self._slots, self._waits = HeldSlots(), ArenaWaits(config.max_arena_wait_s)
        self._work = asyncio.Event()
        self._calls: dict[asyncio.Task[None], Call] = {}
        self._vital: list[VitalTask] = []
        self.on_stuck: OnStuck = lambda model: None
        self.stuck_calls = StuckCalls(costs, config.hang_s)
        self._refusal: Callable[[], WavserveError] | None = None
        """the error of every group, once none is taken any more"""

    @property
    def queue_depth(self) -> int:
        return len(self._queue)

    @property
    def queue_age_s(self) -> float:
        """Seconds that the oldest group in the queue has waited."""
        return max((self._clock() - group.queued_at for group in self._queue), default=0.0)

    @property
    def slots_held(self) -> int:
        return len(self._slots)

    def start(self, on_death: OnDeath = ignore_death) -> None:
        """Begins to dispatch. `on_death` is told when the dispatcher dies; then every group gets NotReady."""

        def died(name: str) -> None:
            self._refuse_all(partial(NotReady, "the batcher died"))
            on_death(name)

        watch = self._watch_calls()
        self._vital = [VitalTask(self._dispatch(), "batcher", died), VitalTask(watch, "the watch of calls", died)]

    async def close(self, refusal: Callable[[], WavserveError] = closed) -> None:
        """Stops dispatching, waits for running calls, and answers queued and later groups with `refusal`."""
        self._refusal = refusal
        await asyncio.gather(*(task.stop() for task in self._vital))
        await asyncio.gather(*self._calls, return_exceptions=True)
        self._refuse_all(refusal)

    async def run(self, group: SampleGroup) -> Tensors:
        """Outputs of one group, without the group axis.

        Raises the group's typed error (BackendError and its children; also for a malformed group), and `refusal` once
        closed. A full arena is no error at first: the group waits for slots, and gets ArenaFull after
        `max_arena_wait_s`. Cancelling the caller drops the group.
        """
        with tracing.span(group.verb) as group.span:
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

    def _refuse_all(self, refusal: Callable[[], WavserveError]) -> None:
        """Answers the queue with an error; later groups get it at once."""
        self._refusal = refusal
        for group in self._queue:
            self._answer(group, refusal())
        self._queue.clear()

    def _free_unread(self, group: SampleGroup) -> None:
        """The caller was cancelled. Slots of an answer that came a moment before have no reader: they are freed."""
        answer = group.future
        if group.verb_info.allocates and answer.done() and not answer.cancelled() and answer.exception() is None:
            self.discard(answer.result()["handles"])

    def _enqueue(self, group: SampleGroup) -> None:
        if self._refusal is not None:
            raise self._refusal()
        group.check()
        group.future = asyncio.get_running_loop().create_future()
        group.arrival, group.queued_at = next(self._arrivals), self._clock()
        group.queued_ns = time.monotonic_ns()
        self._queue.append(group)
        self._work.set()

    async def _dispatch(self) -> None:
        free = asyncio.Semaphore(self._config.depth)
        while True:
            await free.acquire()
            while not (batch := await self._next()):
                self._work.clear()
                await self._work.wait()
            call = Call(batch, self._meter.hand_over(batch[0].verb_info.model))
            task = asyncio.create_task(self._make(call))
            self._calls[task] = call
            task.add_done_callback(partial(self._ended, free))

    def _ended(self, free: asyncio.Semaphore, task: asyncio.Task[None]) -> None:
        del self._calls[task]
        free.release()
        self._work.set()

    async def _next(self) -> list[SampleGroup]:
        """The groups of the next call. First the loop runs: plans answered just now can queue their next group."""
        for _ in range(TURNS if self._calls or self._queue else 0):
            await asyncio.sleep(0)
        return self._pop()

    def _pop(self) -> list[SampleGroup]:
        """Takes the groups of the next call from the queue. Groups whose caller is gone leave the queue here."""
        self._queue = [group for group in self._queue if not group.future.done()]
        ready = [group for group in self._queue if not (self._slots.arena_full and group.verb_info.allocates)]
        batch = choose(ready, self._may_dispatch, self._fits)
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

    async def _make(self, call: Call) -> None:
        """Makes a call and answers its groups. A bug in the accounts fails this call alone, or not even that."""
        answers = await call.answers(self._backend)
        charge = self._meter.end(call.handed)
        began = self._clock() - charge.run_s
        for group, answer in zip(call.groups, answers, strict=True):
            try:
                self._settle(group, answer)
                if group.future.done() and group.on_call is not None:
                    group.on_call(began - group.queued_at, charge.run_s)
            except Exception as error:
                log.exception("%s: a call could not be accounted for", group.verb)
                if not group.future.done():
                    self._answer(group, failed(group.verb, error))
        try:
            self._account(call, answers, charge)
            self._on_call(call.verb, len(call.groups), call.rows, charge.run_s)
        except Exception:
            log.exception("%s: a call could not be accounted for", call.verb)

    async def _watch_calls(self) -> None:
        awake = AwakeTime(self._clock)
        while True:
            await asyncio.sleep(TICK_S)
            self.judge_calls(awake.tick())

    def judge_calls(self, seconds: float) -> None:
        """Gives up calls that stand still and waits for slots that do not come, so that their plans wait no longer.

        `seconds`: since the last time.
        """
        for call, why in self.stuck_calls.newly_stuck(list(self._calls.values()), seconds):
            log.error("%s", why)
            self.on_stuck(call.handed.model)
            for group in call.groups:  # the backend's call is cancelled with its last caller, unless it allocates
                if not group.future.done():
                    self._answer(group, CallStuck(why))
        for group, error in self._waits.overdue(seconds, are_ours=bool(self._slots)):
            self._answer(group, error)

    def _account(self, call: Call, answers: Sequence[Answer], charge: Charge) -> None:
        """Charges the plans of a call with its device seconds; a call without a failed group updates the cost model.

        A failed group is charged too, and its work stays part of the plan's remaining work.
        """
        errors = [isinstance(answer, WavserveError) for answer in answers]
        for group, is_error in zip(call.groups, errors, strict=True):
            predicted_s = 0.0 if is_error else self._costs.seconds(call.kind, group.rows)
            group.ticket.charge(predicted_s, charge.used_s * group.rows / call.rows)
        if not any(errors) and charge.ran:
            self._costs.measured(call.kind, call.rows, charge.used_s, charge.run_s, call.yields)
            self.stuck_calls.answered(call)

    def _settle(self, group: SampleGroup, answer: Answer) -> None:
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
        self._waits.refused(group)
        if not group.future.done():
            group.span.set({"wavserve.arena": "full"})
            group.queued_ns = time.monotonic_ns()
            self._queue.append(group)
        if not self._slots:  # no plan here will free a slot: leases of others must expire
            asyncio.get_running_loop().call_later(self._config.arena_retry_s, self._reopen)

    def _reopen(self) -> None:
        self._slots.arena_full = False
        self._work.set()

    def _answer(self, group: SampleGroup, answer: Answer) -> None:
        if group.future.done():  # its own caller cancelled it, or it was given up
            is_given_up = group.future.cancelled() or isinstance(group.future.exception(), CallStuck | ArenaFull)
            assert is_given_up, "a group was answered twice"
        elif isinstance(answer, WavserveError):
            group.future.set_exception(answer)
        else:
            group.future.set_result(answer)
