"""Spans: what was done for a plan, where and how long, and the W3C trace context that joins those of several processes.

The current span belongs to a task. A task that begins within it, begins with it. Nothing here records a span: `otel`
has those that are recorded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar, Self

from wavserve.core.errors import WavserveError, error_name

TRACE_KEY = "traceparent"
"""HTTP header and gRPC metadata key of a request's trace context."""

_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")

Attributes = Mapping[str, str | int | float | bool]
NOTHING: Attributes = {}


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A span's place in a trace, as it crosses between processes."""

    trace_id: str
    """32 hexadecimal digits"""
    span_id: str
    """16 hexadecimal digits"""
    sampled: bool
    """whether the trace is recorded"""

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{int(self.sampled):02x}"

    @classmethod
    def parse(cls, texts: Sequence[str]) -> Self | None:
        """The context in the `traceparent`s of a request. None unless there is one, and it is well-formed.

        W3C wants others ignored: a proxy's mistake costs no robot its plan.
        """
        match = _TRACEPARENT.fullmatch(texts[0]) if len(texts) == 1 else None
        if match is None or (match[1] == "00" and match[5] is not None):
            return None
        return cls(match[2], match[3], bool(int(match[4], 16) & 1))


class Span:
    """A span that nobody records. It passes the context on that it has; None: it belongs to no trace."""

    __slots__ = ("context",)
    recorded: ClassVar[bool] = False

    def __init__(self, context: TraceContext | None = None) -> None:
        self.context = context

    @property
    def traceparent(self) -> str:
        """For a process that is asked to do a part of this; empty when this belongs to no trace."""
        return "" if self.context is None else self.context.traceparent

    def child(self, name: str, attributes: Attributes = NOTHING, began_ns: int | None = None) -> Span:
        """Begins a part of this one, at `began_ns` of the monotonic clock or now.

        Within `with` it is the task's current span, and it ends with the block.
        """
        return self

    def set(self, attributes: Attributes) -> None:
        """Adds facts."""

    def link(self, other: Span) -> None:
        """Says that this one waits for a span of another trace."""

    def end(self, error: BaseException | None = None) -> None:
        """Ends it; `error`: why it failed. Harmless when called again."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        return None


class Tracer:
    """Begins the first span of a process in each trace. This one records none."""

    def begin(
        self,
        name: str,
        parent: TraceContext | None = None,
        attributes: Attributes = NOTHING,
        began_ns: int | None = None,
    ) -> Span:
        """Begins a span, at `began_ns` of the monotonic clock or now. `parent` None: it begins a trace."""
        return NO_SPAN if parent is None else Span(parent)

    def close(self) -> None:
        """Sends what is left, within a few seconds. No span is recorded any more."""


NO_SPAN = Span()
CURRENT: ContextVar[Span] = ContextVar("span", default=NO_SPAN)


class ActiveSpan(Span):
    """A span that is recorded. `with` makes it the task's current span, and ends it."""

    __slots__ = ("_token",)
    recorded = True

    def __enter__(self) -> Self:
        self._token = CURRENT.set(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        CURRENT.reset(self._token)
        self.end(error)


def span(name: str, attributes: Attributes = NOTHING) -> Span:
    """Begins a part of the task's current span."""
    return CURRENT.get().child(name, attributes)


def current() -> Span:
    """The task's current span."""
    return CURRENT.get()


@contextmanager
def within(active: Span) -> Iterator[Span]:
    """Within the block, `active` is the task's current span. It ends with the block."""
    token, failure = CURRENT.set(active), None
    try:
        yield active
    except BaseException as error:
        failure = error
        raise
    finally:
        CURRENT.reset(token)
        active.end(failure)


def error_type(error: BaseException) -> str:
    """An error's public name. Its message stays out of traces, because it may quote what a robot sent."""
    return error_name(type(error)) if isinstance(error, WavserveError) else type(error).__name__
