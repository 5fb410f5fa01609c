"""What devices and the session store report: calls, caches, bytes on the wire, and models that work or are repaired."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_GROUPS = (1, 2, 4, 8, 16, 32)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class CallMetrics:
    """The metrics of calls to other parts. `Metrics` owns the registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._groups = self._histogram("call_groups", "Sample groups joined in a call.", _GROUPS, "verb")
        self._rows = self._histogram("call_rows", "Batch rows of a call.", _ROWS, "verb")
        self._seconds = self._histogram("call_seconds", "Time of a backend call.", _SECONDS, "verb")
        self._store_seconds = self._histogram(
            "session_store_seconds", "Time of a call to the session store.", _SECONDS, "operation", "outcome"
        )
        self._cache = self._counter("cache_lookups", "Lookups in a cache.", "cache", "where", "result")
        self._wire_bytes = self._counter(
            "wire_bytes", "Tensor bytes of calls to models behind a wire.", "verb", "direction"
        )
        self._repairs = self._counter(
            "repairs", "Reloads of a model, and restarts of a Triton server, by this gateway.", "device", "part"
        )
        self._lookups = self._counter("name_lookups", "Look-ups of the Tritons' or gateways' names in DNS.", "outcome")
        self._up = Gauge(
            "wavserve_model_up", "1 while a model behind a wire works.", ("device", "model"), registry=registry
        )

    def called(self, verb: str, groups: int, rows: int, seconds: float) -> None:
        """A backend call: the groups joined in it, its batch rows, and its duration."""
        self._groups.labels(verb).observe(groups)
        self._rows.labels(verb).observe(rows)
        self._seconds.labels(verb).observe(seconds)

    def stored(self, operation: str, outcome: str, seconds: float) -> None:
        """A call to the session store: `load`, `commit`, `time`, `end`, `rehearsal`, `find_text` or `keep_text`; `ok`,
        `full` or `failed`."""
        self._store_seconds.labels(operation, outcome).observe(seconds)

    def looked_up(self, cache: str, where: str, found: bool) -> None:
        """A lookup in a cache: `instruction`, the embeddings of instructions; in this `process`, or in `redis`."""
        self._cache.labels(cache, where, "hit" if found else "miss").inc()

    def model(self, device: str, model: str, up: bool) -> None:
        """Whether a device's model works, as its supervisor found."""
        self._up.labels(device, model).set(up)
        self._repairs.labels(device, model)  # a rate needs the zero before the first repair

    def repaired(self, device: str, part: str) -> None:
        """A repair was begun: of a model, by name, or of the `server`."""
        self._repairs.labels(device, part).inc()

    def forget(self, device: str) -> None:
        """A device has left: its metrics end."""
        for metric in (self._up, self._repairs):
            metric.remove_by_labels({"device": device})

    def resolved(self, outcome: str) -> None:
        """A name was looked up in DNS: `found`, `empty` or `failed`."""
        self._lookups.labels(outcome).inc()

    def sent(self, verb: str, sent: int, received: int) -> None:
        """Tensor bytes of a call to models behind a wire."""
        self._wire_bytes.labels(verb, "sent").inc(sent)
        self._wire_bytes.labels(verb, "received").inc(received)

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"wavserve_{name}", meaning, labels, registry=self._registry)

    def _histogram(self, name: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"wavserve_{name}", meaning, labels, buckets=buckets, registry=self._registry)
