"""Opens what the settings ask for: the tracer and the lines of plans. OpenTelemetry is imported only for traces."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass

from wavserve.app.settings import LogSettings, TracingSettings
from wavserve.core.errors import SettingsError
from wavserve.core.tracing import Tracer
from wavserve.edge.trail import Trail
from wavserve.system.json_lines import LineWriter
from wavserve.system.telemetry import Metrics

EXTRA = "pip install 'wavserve[otel]'"


@dataclass(frozen=True, slots=True)
class OpenedTrail:
    """The trail of one service, and what closes it."""

    trail: Trail
    lines: LineWriter | None

    def close(self) -> None:
        """Sends and writes what is left, within a few seconds. Neither is kept back by a failure of the other."""
        with ExitStack() as stack:
            stack.callback(self.trail.tracer.close)
            if self.lines is not None:
                stack.callback(self.lines.close)


def open_tracer(settings: TracingSettings) -> Tracer:
    """The tracer of a gateway. Raises SettingsError when OpenTelemetry is not installed."""
    if settings.endpoint is None:
        return Tracer()
    try:
        from wavserve.core import otel
    except ModuleNotFoundError as error:
        raise SettingsError(f"tracing.endpoint: expected the extra otel ({EXTRA}), got no {error.name}") from None
    return otel.open_tracer(otel.Collector(settings.endpoint, settings.ratio), "wavserve", "server")


def open_trail(tracing: TracingSettings, log: LogSettings, metrics: Metrics) -> OpenedTrail:
    """Raises SettingsError as `open_tracer`."""
    tracer = open_tracer(tracing)
    lines = LineWriter(sys.stdout, metrics.plans.line_dropped) if log.plans == "json" else None
    on_line = None if lines is None else lines.put
    return OpenedTrail(Trail(tracer, on_line, tracing.instructions, log.instructions), lines)
