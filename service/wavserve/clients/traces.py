"""Where the spans of a robot's client go: to a collector, when its user names one.

OpenTelemetry is an extra, and is imported only then. Knows no command and no robot.
"""

from __future__ import annotations

from wavserve.core.address import URL, is_url, parse_url, without_login
from wavserve.core.errors import InvalidRequest, shown
from wavserve.core.tracing import Tracer

_EXTRA = "the extra otel (pip install 'wavserve[otel]')"


def tracer_to(url: str | None, service: str, field: str) -> Tracer:
    """A tracer that sends its spans to the collector at `url`; None: one that records none. The caller closes it.

    `service`: the name of the program in its traces. `field`: what the user calls the URL. Raises InvalidRequest for
    what is no URL of a server, and when OpenTelemetry is not installed.
    """
    if url is None:
        return Tracer()
    try:
        endpoint = parse_url(url) if is_url(url) else ""
    except ValueError:
        endpoint = ""
    if not endpoint:
        raise InvalidRequest(field, URL, shown(without_login(url)))
    try:
        from wavserve.core import otel
    except ModuleNotFoundError as error:
        raise InvalidRequest(field, _EXTRA, f"no {error.name}") from None
    return otel.open_tracer(otel.Collector(endpoint), service)
