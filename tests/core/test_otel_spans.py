"""Spans of a collector in one process: what the exporter is given, and what the sender survives."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Event

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext

from tests.spans import Spans
from wavserve.core import otel_spans
from wavserve.core.otel_spans import CollectorTracer, SpanSender
from wavserve.core.tracing import TraceContext, span, within

REMOTE = TraceContext("ab" * 16, "cd" * 8, True)


class Exporter(SpanExporter):
    """Keeps what it is given. `failures` exports raise, and each one waits for `may_export`."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.spans: list[ReadableSpan] = []
        self.may_export, self.has_failed = Event(), Event()
        self.may_export.set()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.may_export.wait(30)
        if self.failures:
            self.failures -= 1
            self.has_failed.set()
            raise ValueError("a bug")
        self.spans += spans
        return SpanExportResult.SUCCESS

    def one(self, name: str) -> ReadableSpan:
        [found] = [each for each in self.spans if each.name == name]
        return found


def opened(exporter: Exporter) -> CollectorTracer:
    return CollectorTracer(SpanSender(exporter, Resource({})), "server", 1.0)


def is_remote(context: SpanContext | None) -> bool:
    assert context is not None
    return context.is_remote


def test_only_a_parent_of_another_process_is_remote() -> None:
    """Who reads traces tells by it which spans enter a process."""
    exporter = Exporter()
    tracer = opened(exporter)
    with within(tracer.begin("gateway.plan", REMOTE)), span("plan") as plan:
        other = tracer.begin("other")
        plan.link(other)
        other.end()
    with Spans().provider.get_tracer("program").start_as_current_span("drive"):
        tracer.begin("robot.plan").end()
    tracer.close()
    remote = {name: is_remote(exporter.one(name).parent) for name in ("gateway.plan", "plan", "robot.plan")}
    assert remote == {"gateway.plan": True, "plan": False, "robot.plan": False}
    [link] = exporter.one("plan").links
    assert not is_remote(link.context)


def test_what_comes_after_the_end_of_a_span_is_no_part_of_it() -> None:
    exporter = Exporter()
    tracer = opened(exporter)
    with within(tracer.begin("gateway.plan")), span("score") as score:
        score.set({"wavserve.rows": 1})
    score.set({"wavserve.arena": "full"})
    score.link(tracer.begin("call"))
    tracer.close()
    sent = exporter.one("score")
    assert (sent.attributes, sent.links) == ({"wavserve.rows": 1}, ())


def test_nothing_is_recorded_after_the_end(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody would send it."""
    exporter = Exporter()
    sender = SpanSender(exporter, Resource({}))
    tracer = CollectorTracer(sender, "server", 1.0)
    late = tracer.begin("late")
    tracer.close()
    late.end()
    assert not tracer.begin("later").recorded
    assert not tracer.begin("later", REMOTE).recorded
    assert sender.num_waiting == 0


def test_an_exporter_that_raises_costs_its_spans_alone(caplog: pytest.LogCaptureFixture) -> None:
    exporter = Exporter(failures=1)
    tracer = opened(exporter)
    tracer.begin("lost").end()
    assert exporter.has_failed.wait(30)
    tracer.begin("kept").end()
    tracer.close()
    assert "a batch of 1 spans could not be sent" in caplog.text
    assert [each.name for each in exporter.spans] == ["kept"]


def test_spans_that_a_slow_collector_costs_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    exporter = Exporter()
    exporter.may_export.clear()
    tracer = opened(exporter)
    for _ in range(2 * otel_spans.MAX_SPANS):
        tracer.begin("plan").end()
    exporter.may_export.set()
    tracer.close()
    assert len(exporter.spans) < 2 * otel_spans.MAX_SPANS
    assert len([told for told in caplog.messages if "spans wait for the collector" in told]) == 1
