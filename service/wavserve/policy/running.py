"""The plans that run: one a session, which a retry joins. Each caller waits until its own deadline.

Knows requests and their outcomes, and nothing of how a plan is executed or committed.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TypeVar

from wavserve.core.errors import DeadlineExceeded, NotReady, Overloaded, SequenceConflict
from wavserve.core.messages import ActionChunk
from wavserve.core.tracing import current
from wavserve.core.types import Clock
from wavserve.policy.inflight import InFlightPlan, ResolvedRequest, answer_to, under_way
from wavserve.policy.parts import OnPlan
from wavserve.scheduling.permits import Permit

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Activity:
    """Two events that others wait for: set while no plan runs, and while one does."""

    idle: asyncio.Event = field(default_factory=asyncio.Event)
    busy: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, num_plans: int) -> None:
        now, before = (self.busy, self.idle) if num_plans else (self.idle, self.busy)
        now.set()
        before.clear()


class RunningPlans:
    """Runs plans as tasks of their own, so that a caller can leave and another can join."""

    def __init__(
        self,
        run: Callable[[InFlightPlan], Coroutine[object, object, ActionChunk]],
        take_place: Callable[[Permit], None],
        on_plan: OnPlan,
        clock: Clock,
    ) -> None:
        """`run` makes and commits a plan. `take_place` turns a permit into the place of a plan, or raises Overloaded.
        `on_plan` receives the first answer of each plan."""
        self.activity = Activity()
        self.activity.note(0)
        self._run = run
        self._take_place = take_place
        self._on_plan = on_plan
        self._clock = clock
        self._plans: dict[str, InFlightPlan] = {}  # by session, or by a key of its own for a plan that opens one
        self._tasks: set[asyncio.Task[object]] = set()  # plans, and records being written

    def __len__(self) -> int:
        return len(self._plans)

    async def answer(self, key: str, resolved: ResolvedRequest) -> ActionChunk:
        """The answer to one request. `key` names its session.

        Raises SequenceConflict when the session is busy with another plan, Overloaded, NotReady, DeadlineExceeded, and
        what the plan raises.
        """
        while True:
            plan = self._join_or_start(key, resolved)
            try:
                chunk = await self._await(plan, resolved.deadline)
            except (DeadlineExceeded, Overloaded):
                by_another = plan.resolved.deadline < resolved.deadline
                if not by_another or self._clock() >= resolved.deadline:
                    raise  # else the loop starts the plan again: another caller's earlier deadline ended it
            else:
                return self._answer_to(plan, chunk, resolved)
            finally:
                self._leave(key, plan)

    async def settled(self, key: str) -> None:
        """Waits for a plan of the session that is being committed. A plan that is not keeps nobody waiting."""
        plan = self._plans.get(key)
        if plan is not None and plan.committing:
            await asyncio.wait((plan.task,))

    def in_background(self, work: Coroutine[object, object, T]) -> asyncio.Task[T]:
        """Runs work that `drain` waits for."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        return task

    async def drain(self, timeout_s: float | None) -> None:
        """Waits for all plans and all work in the background. Cancels what is left after `timeout_s`, except plans that
        are being committed, which end soon."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._tasks:  # a plan that ends may leave a record to be written
                    await asyncio.wait(self._tasks)
        late = list(self._tasks)
        committing = {plan.task for plan in self._plans.values() if plan.committing}
        for task in late:
            if task not in committing:
                task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    def _join_or_start(self, key: str, resolved: ResolvedRequest) -> InFlightPlan:
        """The running plan that a request is a retry of, or its own. Raises SequenceConflict and Overloaded."""
        plan = self._plans.get(key)
        if plan is None or plan.task.done():
            plan = self._start(key, resolved)
        elif plan.resolved.identity != resolved.identity:
            running = under_way(plan.resolved.request)
            raise SequenceConflict("sequence", "one plan at a time in a session", running)
        if plan.resolved is not resolved:
            resolved.permit.release()  # the running plan has a place of its own
            current().link(plan.span)
        plan.waiters += 1
        return plan

    def _start(self, key: str, resolved: ResolvedRequest) -> InFlightPlan:
        self._take_place(resolved.permit)
        plan = self._plans[key] = InFlightPlan(resolved)
        self.activity.note(len(self._plans))
        plan.task = self.in_background(self._run(plan))
        plan.task.add_done_callback(lambda _: self._forget(key, plan))
        return plan

    def _leave(self, key: str, plan: InFlightPlan) -> None:
        """A caller stops waiting. Without callers a plan is cancelled, unless it is being committed."""
        plan.waiters -= 1
        if plan.waiters == 0 and not plan.committing:
            plan.task.cancel()
            self._forget(key, plan)

    def _forget(self, key: str, plan: InFlightPlan) -> None:
        if self._plans.get(key) is plan:
            del self._plans[key]
        self.activity.note(len(self._plans))

    def _on_done(self, task: asyncio.Task[T]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # waiters get the error; asyncio need not report one that nobody waits for

    async def _await(self, plan: InFlightPlan, deadline: float) -> ActionChunk:
        """The plan's answer. At the deadline it waits on only for a commit that has begun, whose outcome decides."""
        left_s = None if deadline == math.inf else max(deadline - self._clock(), 0.0)
        await asyncio.wait((plan.task,), timeout=left_s)
        if not plan.task.done() and not plan.committing:
            raise plan.missed_error(deadline, self._clock())
        try:
            return await asyncio.shield(plan.task)
        except DeadlineExceeded as error:
            if not plan.resolved.progress.admitted:
                raise  # it was refused
            raise plan.missed_error(deadline, self._clock(), error.message) from None
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if caller is not None and caller.cancelling():
                raise
            raise NotReady("the service stopped before the plan was made") from None

    def _answer_to(self, plan: InFlightPlan, chunk: ActionChunk, resolved: ResolvedRequest) -> ActionChunk:
        """The chunk as one caller gets it, by the caller's own deadline. Each plan is counted once."""
        answer = answer_to(chunk, resolved, self._clock())
        if not plan.counted:
            plan.counted = True
            self._on_plan(answer, resolved.request)
        return answer
