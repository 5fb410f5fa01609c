"""Spans over the network to a real collector, and a collector that is away."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

from tests.collector import Collector as Receiver
from tests.collector import serving
from tests.spans import Spans
from wavserve.core import otel_spans
from wavserve.core.errors import InvalidRequest
from wavserve.core.otel import SEND_WITHIN_S, Collector, open_tracer
from wavserve.core.tracing import TraceContext, Tracer, current, span, within

REMOTE = TraceContext("ab" * 16, "cd" * 8, True)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with serving(Receiver()) as receiver:
        yield receiver


@pytest.fixture
def tracer(receiver: Receiver) -> Iterator[Tracer]:
    tracer = open_tracer(Collector(receiver.endpoint), "tests", "server")
    yield tracer
    tracer.close()


def test_spans_reach_the_collector_with_parents_links_facts_and_failures(receiver: Receiver, tracer: Tracer) -> None:
    other = tracer.begin("other")
    with within(tracer.begin("gateway.plan", REMOTE, {"wavserve.edge": "http"})) as root:
        with span("plan", {"wavserve.device": "cuda:0"}) as plan:
            plan.link(other)
            plan.set({"wavserve.iterations": 3})
        root.end(InvalidRequest("instruction", "fewer bytes", "a secret"))
    other.end()
    tracer.close()
    spans = {each.name: each for each in receiver.until(lambda spans: len(spans) == 3)}
    gateway, plan = spans["gateway.plan"], spans["plan"]
    assert (gateway.service, gateway.trace_id, gateway.parent_id) == ("tests", REMOTE.trace_id, REMOTE.span_id)
    assert (plan.trace_id, plan.parent_id) == (REMOTE.trace_id, gateway.span_id)
    assert plan.links == [spans["other"].span_id]
    assert not plan.failed
    assert plan.attributes == {"wavserve.device": "cuda:0", "wavserve.iterations": "3"}
    assert gateway.failed
    assert gateway.attributes["error.type"] == "invalid-request"
    assert b"secret" not in b"".join(receiver.bodies), "an error's message may quote a robot"


def test_a_span_can_begin_before_now(receiver: Receiver, tracer: Tracer) -> None:
    tracer.begin("late", began_ns=time.monotonic_ns() - 2_000_000_000).end()
    [late] = receiver.until(len)
    assert 1.9e9 < late.end_ns - late.start_ns < 60e9


@pytest.mark.parametrize(
    ("ratio", "parent_sampled", "recorded"), [(0, None, False), (0, True, True), (1, False, False)]
)
def test_a_trace_that_begins_elsewhere_is_recorded_as_it_was_decided_there(
    receiver: Receiver, ratio: float, parent_sampled: bool | None, recorded: bool
) -> None:
    tracer = open_tracer(Collector(receiver.endpoint, ratio), "tests", "server")
    parent = None if parent_sampled is None else TraceContext("ab" * 16, "cd" * 8, parent_sampled)
    with within(tracer.begin("gateway.plan", parent)) as begun, span("plan"):
        assert begun.recorded is current().recorded is recorded
        assert begun.traceparent.endswith("-01" if recorded else "-00"), "the next process follows the decision"
    tracer.close()
    assert len(receiver.spans) == (2 if recorded else 0)


def test_a_programs_own_span_is_the_parent() -> None:
    spans = Spans()
    with spans.provider.get_tracer("program").start_as_current_span("drive"):
        spans.tracer("client").begin("robot.plan").end()
    assert spans.paths() == {"drive", "drive > robot.plan"}


def test_a_collector_that_fails_is_told_once_and_again_when_it_is_back(
    receiver: Receiver, tracer: Tracer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    receiver.status = 404

    def told() -> list[str]:
        return [record.getMessage() for record in caplog.records]

    for _ in range(3):
        tracer.begin("lost").end()
        time.sleep(1.2)  # the exporter sends every second
    assert len(told()) == 1
    assert "takes no spans" in told()[0]
    receiver.status = 200
    tracer.begin("kept").end()
    assert [each.name for each in receiver.until(len)] == ["kept"]
    tracer.close()
    assert len(told()) == 2
    assert "takes spans again" in told()[1]


def test_a_silent_collector_delays_no_span_and_no_end_of_the_service() -> None:
    """It takes connections and answers nothing. Far more spans end than may wait."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        tracer = open_tracer(Collector(f"http://127.0.0.1:{silent.getsockname()[1]}"), "tests", "server")
        with within(tracer.begin("gateway.plan")):
            for _ in range(otel_spans.MAX_SPANS + 1000):
                span("plan").end()  # would never return if it waited
        began = time.monotonic()
        tracer.close()
        assert time.monotonic() - began < 10 * otel_spans.CLOSE_WITHIN_S, "the SDK alone waits 30 s"
        [sending] = [each for each in threading.enumerate() if each.name == "wavserve-traces"]
        sending.join(4 * SEND_WITHIN_S)
        assert not sending.is_alive(), "it sends nothing more"


def test_what_the_sdk_says_of_a_programs_own_exporter_stays_in_the_log(
    tracer: Tracer, caplog: pytest.LogCaptureFixture
) -> None:
    own = OTLPSpanExporter("http://127.0.0.1:1/v1/traces", timeout=0.2)
    tracer.begin("ours").end()
    own.export([])
    own.shutdown()
    assert "Failed to export spans" in caplog.text
