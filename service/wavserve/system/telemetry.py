"""What the service reports about itself: Prometheus metrics in a registry of their own.

Every layer reports through `Metrics` and its parts. Only this file, `plan_metrics`, `call_metrics` and
`control_metrics` know the metrics' names, labels and meanings. Base units throughout: seconds, bytes, counts. No label
holds a robot, a session, an instruction or a chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from wavserve.system.call_metrics import CallMetrics
from wavserve.system.control_metrics import ControlMetrics
from wavserve.system.lookups import MEANING, NAME, Lookups, NewLookups
from wavserve.system.memory import MEMORY
from wavserve.system.plan_metrics import PlanMetrics

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

Reading = Callable[[], float]
"""Reads a gauge. `read_watched` calls it on the event loop at every scrape; it must be quick and must not raise."""


class Metrics:
    """Every metric of one server. `/metrics` shows `registry`; two instances share no values."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._readings: list[tuple[Gauge, Reading]] = []
        self._lookups: NewLookups = NewLookups({})
        self.plans = PlanMetrics(self.registry)
        self.calls = CallMetrics(self.registry)
        self.control = ControlMetrics(self.registry)
        labels = ("edge", "outcome")
        self._requests = Counter(
            "wavserve_requests", "Requests ended, by edge and outcome.", labels, registry=self.registry
        )
        self._request_seconds = Histogram(
            "wavserve_request_seconds",
            "Time from the receipt of a request to its end.",
            labels,
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._lag = Histogram(
            "wavserve_event_loop_lag_seconds",
            "How much later than asked the event loop woke a timer.",
            buckets=_SECONDS,
            registry=self.registry,
        )

    def observe_request(self, edge: str, outcome: str, seconds: float) -> None:
        """A request that ended at an edge (`http`, `grpc`, `websocket`), and the seconds from its arrival.

        `outcome`: `ok`, the error's public name, `internal`, `cancelled`, or the name of an HTTP status that the
        framework set itself, such as `method-not-allowed`.
        """
        self._requests.labels(edge, outcome).inc()
        self._request_seconds.labels(edge, outcome).observe(seconds)

    def observe_lag(self, seconds: float) -> None:
        """How much later than asked the event loop woke a timer."""
        self._lag.observe(seconds)

    def describe_build(self, facts: Mapping[str, str]) -> None:
        """What runs here, by label: versions, the policy and its digest."""
        Info("wavserve_build", "What runs here.", registry=self.registry).info(dict(facts))

    def watch_queue(self, depth: Reading, age_s: Reading) -> None:
        """Groups waiting for the device, and how long the oldest of them has waited."""
        self._watch("queue_depth", "Groups waiting for the device.", depth)
        self._watch("queue_age_seconds", "Time that the oldest group in the queue has waited for the device.", age_s)

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

    def watch_ready(self, ready: Reading) -> None:
        """1 while plans are taken, as `/readyz` says."""
        self._watch("ready", "1 while plans are taken.", ready)

    def watch_plans(self, in_flight: Reading) -> None:
        """Plans admitted and not answered yet."""
        self._watch("plans_in_flight", "Plans admitted and not answered yet.", in_flight)

    def watch_memory(self, readings: Mapping[str, Reading]) -> None:
        """Bytes that this process holds, by a key of `MEMORY`, where all models run in this process."""
        for name, reading in readings.items():
            gauge = Gauge(f"wavserve_{name}", MEMORY[name], ("model",), registry=self.registry)
            self._readings.append((gauge.labels("all"), reading))

    def watch_lookups(self, caches: Mapping[str, Lookups]) -> None:
        """Lookups in the models' caches, by name, where all models run in this process."""
        if caches:
            labels = ("model", "cache", "result")
            self._cache = Counter(f"wavserve_{NAME}", MEANING, labels, registry=self.registry)
            self._lookups = NewLookups(caches)

    def read_watched(self) -> None:
        """Reads what is watched. That belongs to the event loop, and a scrape is made on a thread."""
        for gauge, reading in self._readings:
            gauge.set(reading())
        for cache, result, more in self._lookups.take():
            self._cache.labels("all", cache, result).inc(more)

    def _watch(self, name: str, meaning: str, reading: Reading) -> None:
        self._readings.append((Gauge(f"wavserve_{name}", meaning, registry=self.registry), reading))
