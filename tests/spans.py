"""Real spans in this process: OpenTelemetry's SDK with an exporter that keeps them."""

from __future__ import annotations

from dataclasses import dataclass, field

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from wavserve.core.otel import Kind, OtelTracer


@dataclass
class Spans:
    """The spans that ended, under a provider that records all of them."""

    exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)
    provider: TracerProvider = field(default_factory=lambda: TracerProvider(shutdown_on_exit=False))

    def __post_init__(self) -> None:
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def tracer(self, kind: Kind = "server") -> OtelTracer:
        return OtelTracer(self.provider, kind)

    @property
    def ended(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.ended if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        [span] = self.named(name)
        return span

    def path(self, span: ReadableSpan) -> list[str]:
        """Names from the first span of this process down to `span`."""
        by_id = {each.context.span_id: each for each in self.ended if each.context is not None}
        parent = None if span.parent is None else by_id.get(span.parent.span_id)
        return [*([] if parent is None else self.path(parent)), span.name]

    def paths(self) -> set[str]:
        return {" > ".join(self.path(span)) for span in self.ended}
