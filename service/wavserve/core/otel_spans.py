"""Spans for a collector, cheap enough for an event loop that plans: 41 of them belong to a plan of three iterations.

A span of OpenTelemetry's SDK costs several times as much: it has a lock, limits and a sampler of its own. These know
only what the exporter needs, and become the SDK's read-only spans on the thread that sends them. Knows no plan.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from importlib.metadata import version
from random import SystemRandom
from threading import Event, Thread
from typing import Literal

from opentelemetry import trace as api
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from wavserve.core.tracing import NOTHING, ActiveSpan, Attributes, Span, TraceContext, Tracer, error_type

log = logging.getLogger(__name__)

MAX_SPANS = 8192
"""Spans that wait for the collector. More are dropped."""
MAX_BATCH = 512
SEND_EVERY_S = 1.0
CLOSE_WITHIN_S = 2.0

Kind = Literal["server", "client"]
KINDS = {"server": api.SpanKind.SERVER, "client": api.SpanKind.CLIENT}
_PART = api.SpanKind.INTERNAL
_SCOPE = InstrumentationScope("wavserve", version("wavserve"))
_NO_ERROR = api.Status(api.StatusCode.UNSET)
_ids = SystemRandom().getrandbits


class SpanSender:
    """Sends ended spans in batches, on a thread of its own.

    When too many wait, the oldest are dropped, and the log tells of it once.
    """

    def __init__(self, exporter: SpanExporter, resource: Resource) -> None:
        """`resource`: the program that the spans are of."""
        self._exporter, self._resource = exporter, resource
        self._ended: deque[CollectedSpan] = deque(maxlen=MAX_SPANS)
        self._is_dropping = False
        self._closing = Event()
        self._abandoned = False
        self._thread = Thread(target=self._run, name="wavserve-traces", daemon=True)
        self._thread.start()

    @property
    def is_closed(self) -> bool:
        return self._closing.is_set()

    @property
    def num_waiting(self) -> int:
        return len(self._ended)

    def put(self, span: CollectedSpan) -> None:
        if self.is_closed:
            return
        if len(self._ended) == MAX_SPANS and not self._is_dropping:
            self._is_dropping = True
            log.warning("%d spans wait for the collector: the oldest are dropped when others come", MAX_SPANS)
        self._ended.append(span)

    def close(self) -> None:
        """Sends what is left, within `CLOSE_WITHIN_S`. What is not sent by then is lost. Harmless when called again."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._thread.join(CLOSE_WITHIN_S)
        if self._thread.is_alive():
            log.warning("the collector did not take the last spans within %g s: they are lost", CLOSE_WITHIN_S)
            self._abandoned = True
        self._exporter.shutdown()  # ends the exporter's own retries

    def _run(self) -> None:
        while not self._closing.wait(SEND_EVERY_S):
            self._send()
        self._send()

    def _send(self) -> None:
        while self._ended and not self._abandoned:
            batch = [self._ended.popleft() for _ in range(min(len(self._ended), MAX_BATCH))]
            try:
                self._exporter.export([span.readable(self._resource) for span in batch])
            except Exception:  # the thread lives, else no later span is sent
                log.exception("a batch of %d spans could not be sent", len(batch))


class CollectedSpan(ActiveSpan):
    """A span of a trace that is recorded."""

    __slots__ = (
        "_attributes",
        "_began_ns",
        "_ended_ns",
        "_failed",
        "_follows_remote",
        "_kind",
        "_links",
        "_name",
        "_parent",
        "_sender",
    )
    context: TraceContext

    def __init__(
        self,
        name: str,
        sender: SpanSender,
        place: tuple[TraceContext, TraceContext | None, bool],
        kind: api.SpanKind,
        attributes: Attributes,
        began_ns: int | None,
    ) -> None:
        """`place`: its own context, its parent's, and whether the parent is of another process."""
        own, self._parent, self._follows_remote = place
        super().__init__(own)
        self._name, self._sender, self._kind = name, sender, kind
        self._attributes = dict(attributes)
        self._began_ns = time.time_ns() if began_ns is None else unix_ns(began_ns)
        self._links: list[TraceContext] = []
        self._ended_ns = 0  # not yet
        self._failed = False

    def child(self, name: str, attributes: Attributes = NOTHING, began_ns: int | None = None) -> Span:
        own = TraceContext(self.context.trace_id, new_span_id(), True)
        return CollectedSpan(name, self._sender, (own, self.context, False), _PART, attributes, began_ns)

    def set(self, attributes: Attributes) -> None:
        if not self._ended_ns:  # later the sender's thread reads it
            self._attributes.update(attributes)

    def link(self, other: Span) -> None:
        if other.context is not None and not self._ended_ns:
            self._links.append(other.context)

    def end(self, error: BaseException | None = None) -> None:
        if self._ended_ns:
            return
        self._ended_ns = time.time_ns()
        if error is not None:
            self._failed = True
            self._attributes["error.type"] = error_type(error)
        self._sender.put(self)

    def readable(self, resource: Resource) -> ReadableSpan:
        """This ended span as OpenTelemetry's exporters take it."""
        return ReadableSpan(
            self._name,
            sdk_context(self.context, is_remote=False),
            None if self._parent is None else sdk_context(self._parent, is_remote=self._follows_remote),
            resource,
            self._attributes,
            links=tuple(api.Link(sdk_context(each, is_remote=False)) for each in self._links),
            kind=self._kind,
            status=api.Status(api.StatusCode.ERROR) if self._failed else _NO_ERROR,
            start_time=self._began_ns,
            end_time=self._ended_ns,
            instrumentation_scope=_SCOPE,
        )


class CollectorTracer(Tracer):
    """Begins spans that a sender gets, and closes it.

    `ratio`: share of the traces that begin here which are recorded. The others follow their parent. A span without a
    parent is a part of the program's current OpenTelemetry span, where there is one.
    """

    def __init__(self, sender: SpanSender, kind: Kind, ratio: float) -> None:
        self._sender = sender
        self._kind = KINDS[kind]
        self._bound = TraceIdRatioBased.get_bound_for_rate(ratio)

    def begin(
        self,
        name: str,
        parent: TraceContext | None = None,
        attributes: Attributes = NOTHING,
        began_ns: int | None = None,
    ) -> Span:
        above = parent or _of_the_program()
        own = self._new_trace() if above is None else TraceContext(above.trace_id, new_span_id(), above.sampled)
        if not own.sampled or self._sender.is_closed:
            return Span(own)
        return CollectedSpan(name, self._sender, (own, above, parent is not None), self._kind, attributes, began_ns)

    def close(self) -> None:
        self._sender.close()

    def _new_trace(self) -> TraceContext:
        number = _ids(128) or 1
        sampled = number & TraceIdRatioBased.TRACE_ID_LIMIT < self._bound
        return TraceContext(f"{number:032x}", new_span_id(), sampled)


def new_span_id() -> str:
    return f"{_ids(64) or 1:016x}"


def unix_ns(monotonic_ns: int) -> int:
    """A moment of the monotonic clock on the clock of traces."""
    return time.time_ns() - (time.monotonic_ns() - monotonic_ns)


def sdk_context(context: TraceContext, *, is_remote: bool) -> api.SpanContext:
    """A context as OpenTelemetry has it. `is_remote`: whether it is of another process."""
    flags = api.TraceFlags(api.TraceFlags.SAMPLED if context.sampled else api.TraceFlags.DEFAULT)
    return api.SpanContext(int(context.trace_id, 16), int(context.span_id, 16), is_remote, flags)


def own_context(known: api.SpanContext) -> TraceContext:
    """A context of OpenTelemetry as ours."""
    return TraceContext(f"{known.trace_id:032x}", f"{known.span_id:016x}", known.trace_flags.sampled)


def _of_the_program() -> TraceContext | None:
    known = api.get_current_span().get_span_context()
    return own_context(known) if known.is_valid else None
