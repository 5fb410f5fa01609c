"""Sample groups: how several of them become one backend call, and how the call's outputs become theirs.

Knows tensors and verbs, and nothing of when a call is made.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wavserve.core.errors import BackendError, WavserveError
from wavserve.core.tracing import NO_SPAN, Span
from wavserve.core.types import Tensors
from wavserve.core.verbs import VERBS, Verb, error_of
from wavserve.scheduling.costs import CallKind
from wavserve.scheduling.ledger import Rank, Ticket

SHORTEST_WAIT_NS = 1_000_000
"""The shortest time in the queue that has a span of its own."""


@dataclass(slots=True, eq=False)
class SampleGroup:
    """Samples of one plan that go through one verb together. The tensors have no group axis yet."""

    verb: str
    tensors: Tensors
    params: Mapping[str, int] = field(default_factory=dict)
    ticket: Ticket = field(default_factory=Ticket)
    """the plan's"""
    on_call: Callable[[float, float], None] | None = None
    """receives (seconds queued, seconds in the call) when the group is answered"""
    arrival: int = -1
    queued_at: float = 0.0
    span: Span = NO_SPAN
    queued_ns: int = 0
    """when it was queued, for its span (monotonic)"""
    future: asyncio.Future[Tensors] = field(init=False)

    @property
    def rows(self) -> int:
        name = self.tensors.get("noise_name")
        return len(name) if name is not None and name.ndim > 1 else 1

    @property
    def verb_info(self) -> Verb:
        """The verb's row of the table."""
        return VERBS[self.verb]

    @property
    def joinable(self) -> bool:
        """Whether it may share a call with other groups."""
        return self.verb_info.joinable and not self.ticket.alone

    @property
    def signature(self) -> tuple[object, ...]:
        """Groups with equal signatures may share a call."""
        shapes = tuple(sorted((name, tensor.shape) for name, tensor in self.tensors.items()))
        return self.verb, shapes, tuple(sorted(self.params.items()))

    @property
    def kind(self) -> CallKind:
        steps = self.params.get(self.verb_info.steps_param, 1)
        names = self.tensors.get("noise_name")
        value_samples = names.shape[1] if names is not None and names.ndim == 3 else 1
        return CallKind(self.verb, steps, value_samples, guided="weights" in self.tensors)

    @property
    def dispatch_order(self) -> tuple[bool, Rank, bool, int]:
        """Lower goes first: calls without device time, then by plan; within a plan, verbs that lead to free slots."""
        return self.verb_info.computes, self.ticket.rank, not self.verb_info.takes_handles, self.arrival

    def trace_wait(self) -> None:
        """Adds the time in the queue to the span. A short wait says nothing, and would cost as much as a long one."""
        if self.span.recorded and time.monotonic_ns() - self.queued_ns >= SHORTEST_WAIT_NS:
            self.span.child("queued", began_ns=self.queued_ns).end()

    def check(self) -> None:
        """Raises BackendError for a group that cannot be put in order or joined: a bug of the caller."""
        try:
            hash((self.signature, self.kind, self.dispatch_order, self.rows))
            handles = self.tensors["handles"] if self.verb_info.takes_handles and "handles" in self.tensors else None
        except Exception as error:
            raise BackendError(f"{self.verb}: malformed group: {type(error).__name__}: {error}") from error
        if handles is not None and not _are_handles(handles, dims=2):
            raise BackendError(f"{self.verb}: handles: expected integers [N 2], got {handles.dtype} {handles.shape}")


def join(batch: Sequence[SampleGroup]) -> dict[str, NDArray[Any]]:
    """Stacks groups along a new leading axis G; parameters become int32 `[G, 1]`."""
    first = batch[0]
    tensors = {name: np.stack([group.tensors[name] for group in batch]) for name in first.tensors}
    scalars = {name: np.full((len(batch), 1), value, np.int32) for name, value in first.params.items()}
    return {**tensors, **scalars}


def split(verb: str, outputs: Tensors, groups: int) -> list[Tensors | WavserveError]:
    """Per-group outputs, or the typed error a group's status stands for. Raises BackendError on malformed outputs."""
    wrong = [name for name, tensor in outputs.items() if len(tensor) != groups]
    if wrong or (VERBS[verb].allocates and not _are_handles(outputs.get("handles"), dims=3)):
        raise BackendError(
            f"{verb}: expected outputs of {groups} groups, got malformed {', '.join(wrong) or 'handles'}"
        )
    status: Iterable[int] = outputs.get("status", np.zeros(groups, np.int32)).tolist()
    rest = {name: tensor for name, tensor in outputs.items() if name != "status"}
    return [error_of(code) or {name: tensor[g] for name, tensor in rest.items()} for g, code in enumerate(status)]


def _are_handles(tensor: NDArray[Any] | None, dims: int) -> bool:
    """Whether a tensor names arena slots: pairs of slot and generation on the last of `dims` axes."""
    return tensor is not None and tensor.dtype.kind == "i" and tensor.ndim == dims and tensor.shape[-1] == 2
