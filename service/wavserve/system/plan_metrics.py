"""What plans report: their deadlines, stages and iterations, and why plans were refused or gated."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram

from wavserve.system.signed_histogram import SignedHistogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_ITERATIONS = (0, 1, 2, 3, 4, 5, 6, 8, 10)
_JUMPS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_GAINS = (-10.0, -3.0, -1.0, -0.3, -0.1, -0.03, 0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_STDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.25)
_RESULTS = ("none", "met", "met_degraded", "late", "missed", "refused")


class PlanMetrics:
    """The metrics of plans. `Metrics` owns the registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._describe_deadlines()
        self._describe_planning()
        self._describe_actions()

    def answered(self, iterations: int, deadline: str, stage_s: Mapping[str, float], trace_id: str = "") -> None:
        """A plan that was answered: its iterations, a `DeadlineResult` value, and its receipt's `stage_s`.

        `trace_id`: of its trace, for exemplars; empty: it is not traced.
        """
        self._iterations.observe(iterations)
        self._ended(deadline, stage_s, trace_id)

    def missed(self, stage_s: Mapping[str, float], trace_id: str = "") -> None:
        """A plan that was admitted and was not ready by its deadline, so it was not answered with actions.

        `stage_s`: seconds of the stages that had ended by then. `trace_id` as in `answered`.
        """
        self._ended("missed", stage_s, trace_id)

    def refused(self, reason: str) -> None:
        """A request for which no plan was made: the `reason` of an `Overloaded`, or `deadline`."""
        self._deadlines.labels("refused").inc()
        self._refused.labels(reason).inc()

    def planned(self, gain: float, std: float) -> None:
        """A plan of two iterations or more: the best score of the last one minus that of the first one, and the mean
        std of the video samples' Gaussian in the end."""
        self._gain.observe(gain)
        self._std.observe(std)

    def gated(self, outcome: str, limit: str, dimension: str) -> None:
        """A plan that breaks a limit of the policy, so that its chunk was `cut` or `refused`.

        `limit`: position, velocity or jerk. `dimension`: of the action, by name. Both are of its first bad step.
        """
        self._gated.labels(outcome, limit, dimension).inc()

    def unusual(self, dimension: str) -> None:
        """A dimension of a planned state, by name, that is far outside the policy's statistics."""
        self._unusual.labels(dimension).inc()

    def seam(self, mode: str, jump: float) -> None:
        """A plan that had a left-over: its mode of real-time chunking, and its receipt's `seam_jump`."""
        self._seam_jump.labels(mode).observe(jump)

    def line_dropped(self) -> None:
        """A plan's line of JSON that was lost, because its reader is slow or gone."""
        self._dropped_lines.inc()

    def _ended(self, deadline: str, stage_s: Mapping[str, float], trace_id: str) -> None:
        self._deadlines.labels(deadline).inc()
        exemplar = {"trace_id": trace_id} if trace_id else None
        for stage, seconds in stage_s.items():
            self._stage_seconds.labels(stage, deadline).observe(seconds, exemplar)

    def _describe_deadlines(self) -> None:
        self._deadlines = self._counter("plans", "Plans finished or refused, by deadline result.", "deadline")
        for result in _RESULTS:  # a rate needs the zero before the first one
            self._deadlines.labels(result)
        self._refused = self._counter("refused_plans", "Requests refused before a plan was made, by reason.", "reason")
        self._dropped_lines = self._counter("dropped_plan_lines", "Lines of plans that were lost (log.plans).")
        self._stage_seconds = self._histogram(
            "plan_stage_seconds", "Time of a plan's stage, by deadline result.", _SECONDS, "stage", "deadline"
        )

    def _describe_planning(self) -> None:
        self._iterations = self._histogram("plan_iterations", "Planning iterations of a plan.", _ITERATIONS)
        self._gain = SignedHistogram(
            "wavserve_planning_gain", "Best score of a plan's last iteration minus that of its first one.", _GAINS
        )
        self._registry.register(self._gain)
        self._std = self._histogram(
            "planning_std", "Mean std of the video Gaussian, refitted to the elites of the last iteration.", _STDS
        )

    def _describe_actions(self) -> None:
        self._gated = self._counter(
            "gated_plans",
            "Plans that break a limit of the policy, by what became of the chunk.",
            "outcome",
            "limit",
            "dimension",
        )
        self._unusual = self._counter(
            "unusual_states", "Planned states far outside the policy's statistics, by dimension.", "dimension"
        )
        self._seam_jump = self._histogram(
            "seam_jump", "Jump from a left-over to its next chunk, in fractions of the action's range.", _JUMPS, "mode"
        )

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"wavserve_{name}", meaning, labels, registry=self._registry)

    def _histogram(self, name: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"wavserve_{name}", meaning, labels, buckets=buckets, registry=self._registry)
