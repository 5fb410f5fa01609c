"""A run's results as plain data for JSON: figures of each phase, of each group, series by the second, verdicts.

Called at a run's end. Milliseconds, megabytes and counts; a figure of nothing is null.
"""

from __future__ import annotations

import os
import platform
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from loadtest.robots import figures
from loadtest.robots.journal import OUTCOMES, Ask, Journal, Scrape, Span
from loadtest.robots.scenario import Scenario
from loadtest.robots.verdicts import Verdict

PACKAGES = ("wavserve", "torch", "numpy", "grpcio", "httpx", "fastapi", "uvicorn")
MB = 1e6
WORDS_KEPT = 5

_number = re.compile(r"[0-9.]+")


def results(scenario: Scenario, journal: Journal, verdicts: list[Verdict], about: Mapping[str, Any]) -> dict[str, Any]:
    """Everything; `about` says which service it was and how it was started."""
    return {
        "scenario": scenario.model_dump(mode="json"),
        **about,
        "machine": {"cores": os.cpu_count(), "system": platform.platform(terse=True)},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "ok": all(verdict.ok for verdict in verdicts),
        "verdicts": [asdict(verdict) for verdict in verdicts],
        "phases": [phase(journal, span) for span in journal.spans],
        "series": series(journal),
    }


def phase(journal: Journal, span: Span) -> dict[str, Any]:
    """One phase's figures."""
    asks, seconds = journal.of(span.name), span.ended - span.began
    done = figures.answered(asks)
    stalls = [stall for stall in journal.stalls if stall.phase == span.name]
    shares = {ask.robot: 0 for ask in asks} | Counter(ask.robot for ask in done)
    return {
        "name": span.name,
        "seconds": round(seconds, 3),
        "robots": dict(span.robots),
        "warm_up": span.warm_up,
        "told_asks_per_s": span.offered_per_s,
        "untaken_turns": span.untaken,
        "asks": {outcome: sum(ask.outcome == outcome for ask in asks) for outcome in OUTCOMES},
        "asks_per_s": round(len(asks) / seconds, 3),
        "answered_per_s": round(sum(ask.ended <= span.ended for ask in done) / seconds, 3),
        **_times(asks),
        "missed_ms": spread(ask.seconds for ask in asks if ask.outcome == "missed"),
        "retry_after_ms": spread(ask.retry_after_s for ask in asks if ask.retry_after_s is not None),
        "healthz_ms": spread(probe.value for probe in figures.within(journal.health, span)),
        "client_lag_ms": spread(lag.value for lag in figures.within(journal.lags, span)),
        "deadlines": deadlines(journal, span, asks),
        "stalls": {
            "count": len(stalls),
            "seconds": round(sum(one.stall.seconds for one in stalls), 3),
            "robots": len({one.robot for one in stalls}),
        },
        "fairness": {"jain": figures.jain(shares.values()), "answered": dict(shares)},
        "memory": memory(journal, span),
        "faults": _common(fault for ask in asks for fault in ask.faults),
        "words": _common(_number.sub("#", ask.words) for ask in asks if ask.outcome != "answered"),
        "groups": {name: group([ask for ask in asks if ask.group == name]) for name in span.robots},
    }


def group(asks: list[Ask]) -> dict[str, Any]:
    """One group's figures in a phase."""
    return {"asks": {outcome: sum(ask.outcome == outcome for ask in asks) for outcome in OUTCOMES}, **_times(asks)}


def deadlines(journal: Journal, span: Span, asks: list[Ask]) -> dict[str, Any]:
    """How plans stood to their deadlines: as receipts say, as the service's clock says, as robots saw it."""
    told = Counter(ask.reply.deadline for ask in asks if ask.reply is not None)
    late = figures.lateness(journal, span)
    return {
        **{name: told[name] for name in ("none", "met", "met_degraded")},
        "missed": sum(ask.outcome == "missed" for ask in asks),
        "deadline_ms": sorted({round(ask.deadline_s * 1e3) for ask in asks if ask.deadline_s is not None}),
        "sent_late": len(figures.sent_late(asks)),
        "late_at_robot": len(late),
        "late_at_robot_ms": spread(one.late_s for one in late),
        "late_beyond_jitter": sum(one.beyond for one in late),
    }


def memory(journal: Journal, span: Span) -> dict[str, float] | None:
    """Resident memory of the service: first, last, largest, and its slope."""
    seen = figures.within(journal.memory, span)
    if not seen:
        return None
    sizes = [one.value / MB for one in seen]
    per_s = figures.slope(seen) or 0.0
    told = {"first_mb": sizes[0], "last_mb": sizes[-1], "max_mb": max(sizes), "slope_mb_min": per_s * 60 / MB}
    return {name: round(value, 2) for name, value in told.items()}


def spread(seconds: Iterable[float]) -> dict[str, float] | None:
    """Percentiles in milliseconds; None of nothing."""
    found = list(seconds)
    if not found:
        return None
    told = {f"p{q}": figures.percentile(found, q) for q in (50, 90, 99)} | {"max": max(found)}
    return {name: round((value or 0.0) * 1e3, 3) for name, value in told.items()}


def series(journal: Journal) -> dict[str, list[dict[str, float]]]:
    """By the second since the run began: asks by outcome; readings of /metrics; memory."""
    if not journal.spans:
        return {"asks": [], "service": [], "memory": []}
    zero = journal.spans[0].began
    seconds: dict[int, Counter[str]] = {}
    for ask in journal.asks:
        seconds.setdefault(int(ask.ended - zero), Counter())[ask.outcome] += 1
    return {
        "asks": [{"s": s, **{name: seconds[s][name] for name in OUTCOMES}} for s in sorted(seconds)],
        "service": [
            {"s": round(now.at - zero, 1), "queue": now.queue_depth, "plans": now.in_flight, "groups": batch(old, now)}
            for old, now in zip(journal.scrapes, journal.scrapes[1:], strict=False)
        ],
        "memory": [{"s": round(one.at - zero, 1), "mb": round(one.value / MB, 2)} for one in journal.memory],
    }


def batch(old: Scrape, now: Scrape, verbs: Iterable[str] = ("imagine", "score", "value_features", "decode")) -> float:
    """Sample groups that joined in a call of planning, on average between two readings; 0 without a call."""
    calls = sum(now.call_count.get(verb, 0) - old.call_count.get(verb, 0) for verb in verbs)
    groups = sum(now.call_groups.get(verb, 0) - old.call_groups.get(verb, 0) for verb in verbs)
    return round(groups / calls, 3) if calls > 0 else 0.0


def _times(asks: list[Ask]) -> dict[str, Any]:
    done = figures.answered(asks)
    replies = [ask.reply for ask in done if ask.reply is not None]
    stages = sorted({stage for reply in replies for stage in reply.stage_s})
    return {
        "latency_ms": spread(ask.seconds for ask in done),
        "refusal_ms": spread(ask.seconds for ask in asks if ask.outcome == "refused"),
        "stage_ms": {s: spread(reply.stage_s[s] for reply in replies if s in reply.stage_s) for s in stages},
        "iterations": dict(sorted(Counter(str(reply.iterations_done) for reply in replies).items())),
    }


def _common(words: Iterable[str]) -> dict[str, int]:
    return dict(Counter(words).most_common(WORDS_KEPT))
