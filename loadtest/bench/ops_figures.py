"""The figures and aims of the operations benchmark. Times are in seconds where they are measured and in milliseconds in
the figures. Nothing here runs anything.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from loadtest.aims import at_most
from loadtest.aims import table as aims_table

MAX_TOGETHER_MS = 3.0
"""The aim for the p50 of what all parts together add to a plan."""


@dataclass(slots=True)
class Pairs:
    """Plans in pairs, without a part and with it. `cpu_s`: processor time of the two gateways meanwhile."""

    seconds: list[tuple[float, float]] = field(default_factory=list)
    cpu_s: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Lag:
    """The histogram of the event loop's lag since the gateway's start. `upto`: bound in seconds -> count."""

    upto: Mapping[float, float]
    total_s: float

    def since(self, before: Lag) -> Lag:
        return Lag({bound: n - before.upto[bound] for bound, n in self.upto.items()}, self.total_s - before.total_s)

    @property
    def mean_s(self) -> float:
        return self.total_s / max(1.0, self.upto[math.inf])

    def quantile(self, q: float) -> float:
        """As Prometheus computes it: linear within a bucket."""
        wanted = q * self.upto[math.inf]
        for (low, below), (high, count) in itertools.pairwise([(0.0, 0.0), *sorted(self.upto.items())]):
            if count >= wanted and count > below:
                return low if high == math.inf else low + (high - low) * (wanted - below) / (count - below)
        return 0.0


def added(found: Pairs, scrapes: Sequence[float]) -> dict[str, Any]:
    """The figures of one part. `scrapes`: seconds of each read of `/metrics`, by a client that waits for it."""
    off, on = np.array(found.seconds).T * 1e3
    quartiles = np.percentile(on - off, [25, 50, 75])
    figures = {
        "pairs": len(found.seconds),
        "added_ms": {
            name: round(float(value), 3) for name, value in zip(("p25", "p50", "p75"), quartiles, strict=True)
        },
        "plan_ms": {"off": round(float(np.median(off)), 3), "on": round(float(np.median(on)), 3)},
        "gateway_cpu_ms_per_plan": dict(
            zip(("off", "on"), (round(each * 1e3 / len(found.seconds), 2) for each in found.cpu_s), strict=True)
        ),
    }
    if scrapes:
        figures["scrape_ms"] = round(float(np.median(scrapes)) * 1e3, 2)
    return figures


def load_figures(times: Sequence[float], cores: float, before: Lag, after: Lag) -> dict[str, float]:
    """The figures of one turn of the load. `times`: seconds from each observation to its chunk."""
    lag = after.since(before)
    p50, p99 = np.percentile(times, [50, 99]) * 1e3
    return {
        "plans": float(len(times)),
        "plan_p50_ms": float(p50),
        "plan_p99_ms": float(p99),
        "gateway_cores": cores,
        "lag_mean_ms": lag.mean_s * 1e3,
        "lag_p99_ms": lag.quantile(0.99) * 1e3,
    }


def report(
    costs: Mapping[str, Mapping[str, Any]],
    loads: Mapping[str, Any],
    robots: int,
    load: Sequence[Sequence[float]],
) -> dict[str, Any]:
    """The JSON object of the last line. `load`: the machine's load averages before and after."""
    together = costs["together"]["added_ms"]["p50"] if "together" in costs else None
    return {
        "bench": "ops",
        "plan": "tiny, K=3, N=8, M=3, a fake backend, unary gRPC with a session, one robot",
        "costs": costs,
        "load": {"robots": robots, "observations_per_robot_s": 0.5, **loads},
        "load_average": [[round(each, 1) for each in moment] for moment in load],
        "aims": [at_most("all parts together: p50 that they add to a plan, ms", MAX_TOGETHER_MS, together)],
    }


def table(found: Mapping[str, Any]) -> str:
    """The figures as text."""
    lines = ["part        added ms p25 / p50 / p75     plan ms off / on    gateway's cpu ms off / on"]
    for part, each in found["costs"].items():
        added_ms, plan, cpu = each["added_ms"], each["plan_ms"], each["gateway_cpu_ms_per_plan"]
        spread = " / ".join(f"{added_ms[key]:6.2f}" for key in ("p25", "p50", "p75"))
        lines.append(
            f"{part:10}  {spread}     {plan['off']:6.2f} / {plan['on']:6.2f}     {cpu['off']:6.2f} / {cpu['on']:6.2f}"
        )
    for name in ("off", "on"):
        if turn := found["load"].get(name):
            lines.append(
                f"{found['load']['robots']} robots, {name}: {turn['gateway_cores']:.2f} cores, lag mean "
                f"{turn['lag_mean_ms']:.2f} p99 {turn['lag_p99_ms']:.1f} ms, plan p50 {turn['plan_p50_ms']:.1f} "
                f"p99 {turn['plan_p99_ms']:.1f} ms"
            )
    return "\n".join([*lines, "", aims_table(found["aims"])])
