"""What the robots' streams report: observations by outcome, and what the robots executed. No label names a robot."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

_AGES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0)
_SHARES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


class ControlMetrics:
    """The metrics of Control. `Metrics` owns the registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._streams = Counter(
            "wavserve_control_streams_ended", "Robots' streams that ended.", ("outcome",), registry=registry
        )
        self._observations = Counter(
            "wavserve_control_observations", "Observations on robots' streams.", ("outcome",), registry=registry
        )
        self._ages = Histogram(
            "wavserve_control_chunk_age_seconds",
            "Time from the capture of the images to the first action of the chunk, as robots report it.",
            buckets=_AGES,
            registry=registry,
        )
        self._seams = Histogram(
            "wavserve_control_seam_jump",
            "Jump of the command at a change of chunks, in fractions of the action's range, as robots report it.",
            buckets=_SHARES,
            registry=registry,
        )
        self._starved = Counter(
            "wavserve_control_starved_steps", "Control steps without an action of a chunk.", registry=registry
        )
        self._clamped = Counter(
            "wavserve_control_clamped_steps", "Control steps that a robot's own limits changed.", registry=registry
        )
        self._holds = Counter("wavserve_control_holds", "Robots that began to hold.", ("reason",), registry=registry)

    def stream_ended(self, outcome: str) -> None:
        """`outcome`: `ok`, `cancelled` (the client went away), or the public name of the error that ended it."""
        self._streams.labels(outcome).inc()

    def observation(self, outcome: str) -> None:
        """`outcome`: `planned`, the value of a `DropReason`, the public name of an error, or `unanswered`."""
        self._observations.labels(outcome).inc()

    def executed(self, clamped_steps: int, starved_steps: int, hold: str | None) -> None:
        """A report. `hold`: why the robot has begun to hold; None: it does not, or it did before."""
        self._clamped.inc(clamped_steps)
        self._starved.inc(starved_steps)
        if hold is not None:
            self._holds.labels(hold).inc()

    def changed_chunk(self, age_s: float, seam_jump: float) -> None:
        """The first report of a chunk."""
        self._ages.observe(age_s)
        self._seams.observe(seam_jump)
