"""Spans that go to a collector from a thread of its own, or to the OpenTelemetry provider of a program.

With `otel_spans` the only module that imports OpenTelemetry, which is an extra: it is imported only where traces are
asked for. A collector that is slow or away delays nothing: its spans are dropped, and the log tells of it once. Knows
no plan.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.metadata import version

import requests
from opentelemetry import trace as api
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from wavserve.core.otel_spans import KINDS, CollectorTracer, Kind, SpanSender, own_context, sdk_context, unix_ns
from wavserve.core.tracing import NOTHING, ActiveSpan, Attributes, Span, TraceContext, Tracer, error_type

log = logging.getLogger(__name__)

PATH = "/v1/traces"
SEND_WITHIN_S = 5.0

_NO_PARENT = Context()
_FOR_US: ContextVar[bool] = ContextVar("for_us", default=False)
"""whether the exporter works for us here and now"""


@dataclass(frozen=True, slots=True)
class Collector:
    """Where spans go, and which traces are recorded."""

    endpoint: str
    """URL of an OTLP/HTTP receiver without its path, such as `http://127.0.0.1:4318`"""
    ratio: float = 1.0
    """share of the traces that begin here which are recorded; the others follow their parent"""


class RecordedSpan(ActiveSpan):
    """A span of OpenTelemetry."""

    __slots__ = ("_ended", "_span", "_tracer")

    def __init__(self, span: api.Span, tracer: api.Tracer) -> None:
        super().__init__(own_context(span.get_span_context()))
        self._span = span
        self._tracer = tracer
        self._ended = False

    def child(self, name: str, attributes: Attributes = NOTHING, began_ns: int | None = None) -> Span:
        inside = api.set_span_in_context(self._span, _NO_PARENT)
        span = self._tracer.start_span(name, inside, attributes=attributes, start_time=_start(began_ns))
        return RecordedSpan(span, self._tracer)

    def set(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def link(self, other: Span) -> None:
        if other.context is not None:
            self._span.add_link(sdk_context(other.context, is_remote=False))

    def end(self, error: BaseException | None = None) -> None:
        if self._ended:
            return
        self._ended = True
        if error is not None:
            self._span.set_attribute("error.type", error_type(error))
            self._span.set_status(api.StatusCode.ERROR)
        self._span.end()


class OtelTracer(Tracer):
    """Begins spans of an OpenTelemetry provider, which may be the program's own.

    A span without a parent is a part of the program's current OpenTelemetry span, where there is one.
    """

    def __init__(self, provider: api.TracerProvider, kind: Kind) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("wavserve", version("wavserve"))
        self._kind = KINDS[kind]

    def begin(
        self,
        name: str,
        parent: TraceContext | None = None,
        attributes: Attributes = NOTHING,
        began_ns: int | None = None,
    ) -> Span:
        context = None if parent is None else _inside(sdk_context(parent, is_remote=True))
        span = self._tracer.start_span(name, context, self._kind, attributes, start_time=_start(began_ns))
        return RecordedSpan(span, self._tracer) if span.is_recording() else Span(own_context(span.get_span_context()))


class _Unsaid(logging.Filter):
    """Keeps out of the log what the exporter says while it works for us: `_ToldOnce` tells it once.

    The program may have an exporter of its own, and what the SDK says of that stays in the log.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return not _FOR_US.get()


_UNSAID = _Unsaid()


class _ToldOnce(SpanExporter):
    """Tells the log when the collector fails, and when it is back. The exporter tells of every attempt."""

    def __init__(self, exporter: OTLPSpanExporter, endpoint: str) -> None:
        self._exporter = exporter
        self._endpoint = endpoint
        self._failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        token = _FOR_US.set(True)
        try:
            result = self._exporter.export(spans)
        finally:
            _FOR_US.reset(token)
        failed = result is not SpanExportResult.SUCCESS
        if failed and not self._failing:
            log.warning("the collector at %s takes no spans: traces are lost until it does", self._endpoint)
        elif self._failing and not failed:
            log.info("the collector at %s takes spans again", self._endpoint)
        self._failing = failed
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call]


def open_tracer(collector: Collector, service: str, kind: Kind = "client") -> Tracer:
    """A tracer that sends its spans to a collector. `service`: the name of this program in its traces.

    `kind`: what its first spans are of. A collector that is away is no error.
    """
    logging.getLogger(OTLPSpanExporter.__module__).addFilter(_UNSAID)  # it sees what is logged under this name alone
    session = requests.Session()
    session.trust_env = False  # connections are direct, whatever proxies the environment names
    exporter = OTLPSpanExporter(collector.endpoint.rstrip("/") + PATH, timeout=SEND_WITHIN_S, session=session)
    told = _ToldOnce(exporter, collector.endpoint)
    sender = SpanSender(told, Resource.create(_resource(service)))
    return CollectorTracer(sender, kind, collector.ratio)


def _resource(service: str) -> dict[str, str]:
    return {"service.name": service, "service.version": version("wavserve"), "host.name": socket.gethostname()}


def _inside(context: api.SpanContext) -> Context:
    return api.set_span_in_context(api.NonRecordingSpan(context), _NO_PARENT)


def _start(began_ns: int | None) -> int | None:
    return None if began_ns is None else unix_ns(began_ns)
