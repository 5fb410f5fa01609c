"""What the service reports about itself: Prometheus metrics in a registry of their own, and log lines.

Every layer reports through the methods of `Metrics`. Only this file and `control_metrics` know the
metrics' names, labels and meanings. Base units throughout: seconds, counts.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TextIO

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from wavserve.system.control_metrics import ControlMetrics
from wavserve.system.texts import printable

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_ITERATIONS = (0, 1, 2, 3, 4, 5, 6, 8, 10)
_JUMPS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_GROUPS = (1, 2, 4, 8, 16, 32)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

Reading = Callable[[], float]
"""Reads a gauge. It is called at every scrape, in the scraping thread; it must be quick and must not raise."""


class Metrics:
    """Every metric of one server. `/metrics` shows `registry`; two instances share no values."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.control = ControlMetrics(self.registry)
        self._describe_requests()
        self._describe_plans()
        self._describe_calls()

    def observe_request(self, edge: str, outcome: str, seconds: float) -> None:
        """A request that ended at an edge (`http`, `grpc`, `websocket`), and the seconds from its arrival.

        `outcome`: `ok`, the error's public name, `internal`, `cancelled`, or the name of an HTTP status that the
        framework set itself, such as `method-not-allowed`.
        """
        self._requests.labels(edge, outcome).inc()
        self._request_seconds.labels(edge, outcome).observe(seconds)

    def observe_plan(self, iterations: int, deadline: str) -> None:
        """A plan that was answered: its iterations, and a `DeadlineResult` value."""
        self._iterations.observe(iterations)
        self._deadlines.labels(deadline).inc()

    def observe_missed(self) -> None:
        """A plan that was admitted and was not ready by its deadline, so it was not answered with actions."""
        self._deadlines.labels("missed").inc()

    def observe_refused(self) -> None:
        """A request for which there was no place, no room or no time. No plan was made."""
        self._deadlines.labels("refused").inc()

    def observe_gate(self, outcome: str, limit: str, dimension: str) -> None:
        """A plan that breaks a limit of the policy, so that its chunk was `cut` or `refused`.

        `limit`: position, velocity or jerk. `dimension`: of the action, by name. Both are of its first bad step.
        """
        self._gated.labels(outcome, limit, dimension).inc()

    def observe_unusual(self, dimension: str) -> None:
        """A dimension of a planned state, by name, that is far outside the policy's statistics."""
        self._unusual.labels(dimension).inc()

    def observe_seam(self, mode: str, jump: float) -> None:
        """A plan that had a left-over: its mode of real-time chunking, and its receipt's `seam_jump`."""
        self._seam_jump.labels(mode).observe(jump)

    def observe_stage(self, stage: str, seconds: float) -> None:
        """The time that one plan spent in a stage. The stages are the keys of a receipt's `stage_s`."""
        self._stage_seconds.labels(stage).observe(seconds)

    def observe_call(self, verb: str, groups: int, rows: int, seconds: float) -> None:
        """A backend call: the groups joined in it, its batch rows, and its duration."""
        self._call_groups.labels(verb).observe(groups)
        self._call_rows.labels(verb).observe(rows)
        self._call_seconds.labels(verb).observe(seconds)

    def observe_store(self, operation: str, outcome: str, seconds: float) -> None:
        """A call to the session store: `load`, `commit`, `time` or `end`; `ok`, `full` or `failed`."""
        self._store_seconds.labels(operation, outcome).observe(seconds)

    def observe_model(self, device: str, model: str, up: bool) -> None:
        """Whether a device's model works, as its supervisor found."""
        self._model_up.labels(device, model).set(up)

    def observe_wire(self, verb: str, sent: int, received: int) -> None:
        """Tensor bytes of a call to models behind a wire."""
        self._wire_bytes.labels(verb, "sent").inc(sent)
        self._wire_bytes.labels(verb, "received").inc(received)

    def watch_queue(self, depth: Reading) -> None:
        """Groups waiting for the device."""
        self._watch("queue_depth", "Groups waiting for the device.", depth)

    def watch_remaining(self, seconds: Reading) -> None:
        """Device seconds that the plans in flight still need."""
        self._watch("remaining_device_seconds", "Device seconds that the plans in flight still need.", seconds)

    def watch_arena(self, used: Reading, total: Reading) -> None:
        """Slots of the feature arena."""
        self._watch("arena_slots_used", "Feature arena slots that hold a sample.", used)
        self._watch("arena_slots", "Feature arena slots in total.", total)

    def watch_sessions(self, count: Reading) -> None:
        """Sessions kept."""
        self._watch("sessions", "Robot sessions kept.", count)

    def watch_robots(self, connected: Reading) -> None:
        """Robots with a living stream."""
        self._watch("robots", "Robots with a living stream.", connected)

    def watch_plans(self, in_flight: Reading) -> None:
        """Plans admitted and not answered yet."""
        self._watch("plans_in_flight", "Plans admitted and not answered yet.", in_flight)

    def _watch(self, name: str, meaning: str, reading: Reading) -> None:
        Gauge(f"wavserve_{name}", meaning, registry=self.registry).set_function(reading)

    def _describe_requests(self) -> None:
        labels = ("edge", "outcome")
        self._requests = Counter(
            "wavserve_requests", "Requests ended, by edge and outcome.", labels, registry=self.registry
        )
        self._request_seconds = self._histogram(
            "request_seconds", "Time from the receipt of a request to its end.", labels, _SECONDS
        )

    def _describe_plans(self) -> None:
        self._deadlines = Counter(
            "wavserve_plans", "Plans finished or refused, by deadline result.", ("deadline",), registry=self.registry
        )
        self._gated = Counter(
            "wavserve_gated_plans",
            "Plans that break a limit of the policy, by what became of the chunk.",
            ("outcome", "limit", "dimension"),
            registry=self.registry,
        )
        self._unusual = Counter(
            "wavserve_unusual_states",
            "Planned states far outside the policy's statistics, by dimension.",
            ("dimension",),
            registry=self.registry,
        )
        self._seam_jump = self._histogram(
            "seam_jump",
            "Jump from a left-over to its next chunk, in fractions of the action's range.",
            ("mode",),
            _JUMPS,
        )
        self._iterations = self._histogram("plan_iterations", "Planning iterations of a plan.", (), _ITERATIONS)
        self._stage_seconds = self._histogram("plan_stage_seconds", "Time of a plan's stage.", ("stage",), _SECONDS)

    def _describe_calls(self) -> None:
        labels = ("verb",)
        self._call_groups = self._histogram("call_groups", "Sample groups joined in a call.", labels, _GROUPS)
        self._call_rows = self._histogram("call_rows", "Batch rows of a call.", labels, _ROWS)
        self._call_seconds = self._histogram("call_seconds", "Time of a backend call.", labels, _SECONDS)
        self._store_seconds = self._histogram(
            "session_store_seconds", "Time of a call to the session store.", ("operation", "outcome"), _SECONDS
        )
        self._model_up = Gauge(
            "wavserve_model_up", "1 while a model behind a wire works.", ("device", "model"), registry=self.registry
        )
        self._wire_bytes = Counter(
            "wavserve_wire_bytes",
            "Tensor bytes of calls to models behind a wire.",
            ("verb", "direction"),
            registry=self.registry,
        )

    def _histogram(self, name: str, meaning: str, labels: tuple[str, ...], buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"wavserve_{name}", meaning, labels, buckets=buckets, registry=self.registry)


class JsonLines(logging.Formatter):
    """One JSON object per record: time (UTC), level, logger, message, the fields of `extra=`, and the traceback."""

    _PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in self._PLAIN}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextLines(logging.Formatter):
    """One record a line. Further lines of a message or a traceback are indented, and what does not print is escaped.

    So no text that someone else wrote looks like a record of its own.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return "\n    ".join(map(printable, super().format(record).split("\n")))


def configure_logging(level: str, style: str, stream: TextIO | None = None) -> None:
    """Sends every log line to `stream` (None: standard error) as `text` or `json`, replacing earlier handlers.

    Run uvicorn with `log_config=None`, so that its lines use the same handler.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if style == "json" else TextLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
