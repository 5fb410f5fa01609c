"""One backend call of joined groups: which groups form it, how the backend is asked, and each group's answer.

Knows a backend and groups, and nothing of the queue, of when a call is made and of what it costs.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from wavserve.backends.base import Backend
from wavserve.core.errors import BackendError, WavserveError
from wavserve.core.tracing import NO_SPAN, Span
from wavserve.core.types import Tensors
from wavserve.scheduling.costs import CallKind
from wavserve.scheduling.groups import SampleGroup, join, split
from wavserve.scheduling.ledger import Rank
from wavserve.scheduling.meter import HandedCall

log = logging.getLogger(__name__)

Answer = Tensors | WavserveError
"""A group's outputs or typed error."""


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """Groups that the backend has together. They have one signature."""

    groups: Sequence[SampleGroup]
    handed: HandedCall

    @property
    def verb(self) -> str:
        return self.groups[0].verb

    @property
    def kind(self) -> CallKind:
        return self.groups[0].kind

    @property
    def rows(self) -> int:
        return sum(group.rows for group in self.groups)

    @property
    def rank(self) -> Rank:
        """Of its most urgent plan."""
        return min(group.ticket.rank for group in self.groups)

    @property
    def yields(self) -> bool:
        """Whether it is cancelled when a plan begins."""
        return all(group.ticket.yields for group in self.groups)

    @property
    def allocates(self) -> bool:
        """Such a call is short. It is neither cancelled nor cut at a deadline, because its slots would leak."""
        return self.groups[0].verb_info.allocates

    async def answers(self, backend: Backend) -> Sequence[Answer]:
        """Makes the call. It is cancelled when all its callers are gone."""
        with self._span() as span:
            answers = await self._answers(backend)
            span.end(next((answer for answer in answers if isinstance(answer, WavserveError)), None))
        return answers

    def _span(self) -> Span:
        """A part of the most urgent plan's trace. The other plans' spans link to it."""
        first, *others = (group.span for group in self.groups)
        for group in self.groups:
            group.trace_wait()
        asker = first if first.recorded else next((span for span in others if span.recorded), NO_SPAN)
        call = asker.child(f"call {self.verb}", {"wavserve.groups": len(self.groups), "wavserve.rows": self.rows})
        for span in others:
            if span is not asker:
                span.link(call)
        return call

    async def _answers(self, backend: Backend) -> Sequence[Answer]:
        running = asyncio.create_task(self._run(backend))
        if not self.allocates:
            for group in self.groups:
                group.future.add_done_callback(partial(self._stop_if_unwanted, running))
        await asyncio.wait([running])
        try:
            return split(self.verb, running.result(), len(self.groups))
        except asyncio.CancelledError:  # mostly because every caller is gone; the model keeps nothing of the call
            return [BackendError(f"{self.verb}: the call was cancelled")] * len(self.groups)
        except WavserveError as error:
            return [error] * len(self.groups)
        except Exception as error:
            log.exception("%s: a call failed", self.verb)
            return [failed(self.verb, error)] * len(self.groups)

    async def _run(self, backend: Backend) -> Tensors:
        latest = math.inf if self.allocates else max(group.ticket.deadline for group in self.groups)
        return await backend.run(self.verb, join(self.groups), latest)

    def _stop_if_unwanted(self, running: asyncio.Task[Tensors], _: object) -> None:
        if all(group.future.done() for group in self.groups):
            running.cancel()


def choose(
    queue: Sequence[SampleGroup],
    may_dispatch: Callable[[SampleGroup], bool],
    fits: Callable[[CallKind, int], bool],
) -> list[SampleGroup]:
    """The most urgent group that may run, joined by as many of the same signature as fit. Empty: none may run."""
    waiting = sorted(queue, key=lambda group: group.dispatch_order)
    first = next(filter(may_dispatch, waiting), None)
    if first is None:
        return []
    rows = 0
    chosen: list[SampleGroup] = []
    for group in waiting[waiting.index(first) :]:
        joins = group.joinable and group.signature == first.signature and fits(first.kind, rows + group.rows)
        if chosen and not joins:
            continue
        chosen.append(group)
        rows += group.rows
        if not first.joinable:
            break
    return chosen


def failed(verb: str, error: Exception) -> BackendError:
    """What the callers of a call get when it met a bug."""
    failure = BackendError(f"{verb} failed: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure
