"""`--traces URL` of the commands that drive robots: the spans of the robot's client go to a collector."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from wavserve.clients.traces import tracer_to
from wavserve.core.tracing import Tracer

FLAG = "--traces"
HELP = "send the client's spans to this OTLP/HTTP collector, such as http://127.0.0.1:4318 (extra otel)"


@contextmanager
def open_traces(url: str | None, service: str) -> Iterator[Tracer]:
    """A tracer that sends its spans to the collector, also what is left at the end; None: one that records none.

    `service` and errors as of `tracer_to`.
    """
    tracer = tracer_to(url, service, FLAG)
    try:
        yield tracer
    finally:
        tracer.close()
