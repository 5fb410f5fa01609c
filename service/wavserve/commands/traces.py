"""`--traces URL` of the commands that drive robots: the spans of the robot's client go to a collector.

OpenTelemetry is an extra, and is imported only where traces are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from wavserve.core.address import URL, is_url, parse_url
from wavserve.core.errors import InvalidRequest, shown
from wavserve.core.tracing import Tracer

FLAG = "--traces"
HELP = "send the client's spans to this OTLP/HTTP collector, such as http://127.0.0.1:4318 (extra otel)"
_EXTRA = "the extra otel (pip install 'wavserve[otel]')"


@contextmanager
def open_traces(url: str | None, service: str) -> Iterator[Tracer]:
    """A tracer that sends its spans to the collector, also what is left at the end; None: one that records none.

    `service`: the name of the program in its traces. Raises InvalidRequest for what is no URL of a server, and when
    OpenTelemetry is not installed.
    """
    tracer = Tracer() if url is None else _tracer(url, service)
    try:
        yield tracer
    finally:
        tracer.close()


def _tracer(url: str, service: str) -> Tracer:
    try:
        endpoint = parse_url(url) if is_url(url) else ""
    except ValueError:
        endpoint = ""
    if not endpoint:
        raise InvalidRequest(FLAG, URL, shown(url))
    try:
        from wavserve.core import otel
    except ModuleNotFoundError as error:
        raise InvalidRequest(FLAG, _EXTRA, f"no {error.name}") from None
    return otel.open_tracer(otel.Collector(endpoint), service)
