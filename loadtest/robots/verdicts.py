"""What a run is judged by: criteria with an aim, what was seen, and whether that is good enough.

Called at a run's end, and by tests with made-up journals. Figures do the arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from loadtest.robots import figures
from loadtest.robots.journal import Ask, Journal, Span
from loadtest.robots.scenario import Aims, Scenario

LOAD_LEAST = 0.95
"""Of the asks that were to be made in a phase of told turns; fewer, and it was not the load that it says."""
MB = 1e6
SLOPE_S = 60.0
"""Least time over which a growth a minute is told."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One criterion."""

    criterion: str
    aim: str
    seen: str
    ok: bool


def judge(scenario: Scenario, journal: Journal) -> list[Verdict]:
    """Every criterion of a scenario."""
    verdicts = [*nothing_lost(journal), nothing_late(journal)]
    if scenario.judge == "overload":
        verdicts += overload(scenario.aims, journal)
    if scenario.judge == "mixed":
        verdicts += mixed(scenario.aims, journal)
    return verdicts


def nothing_lost(journal: Journal) -> Iterator[Verdict]:
    """Of every phase: each ask has one answer, its own."""
    asks = journal.asks
    lost = [ask for ask in asks if ask.outcome == "lost"]
    silent = figures.unaccounted(asks) + journal.under_way
    yield _none("asks that nobody answered", len(lost) + silent, _words(lost))
    yield _none("answers given twice", figures.repeated(asks))
    wrong = [ask for ask in asks if ask.faults]
    yield _none("answers that contradict their ask or their receipt", len(wrong), wrong[0].faults[0] if wrong else "")
    failed = [ask for ask in asks if ask.outcome == "failed"]
    yield _none("asks that failed otherwise", len(failed), _words(failed))


def nothing_late(journal: Journal) -> Verdict:
    """No plan is given as if on time after its deadline, by the service's clock and, jitter allowed, by the robot's."""
    sent = figures.sent_late(journal.asks)
    seen = [late for span in journal.spans for late in figures.lateness(journal, span)]
    beyond = [late for late in seen if late.beyond]
    at_robot = f"at the robot {len(seen)}, by up to {max((one.late_s for one in seen), default=0.0) * 1e3:.1f} ms"
    told = f"{len(sent)} sent late; {at_robot}, {len(beyond)} of them by more than jitter"
    return Verdict("plans after their deadline, given as if on time", "0", told, not sent and not beyond)


def overload(aims: Aims, journal: Journal) -> Iterator[Verdict]:
    """The criteria of the overload scenario: of each judged phase, and of the recovery after the last."""
    judged = [span for span in journal.spans if span.judged]
    for span in judged:
        asks = journal.of(span.name)
        yield load_offered(span, asks)
        yield deadlines_met(aims, span, asks)
        yield goodput(aims, span, asks, figures.capacity(journal))
        yield refusals_quick(aims, span, asks, [probe.value for probe in figures.within(journal.health, span)])
        if span.ended - span.began - aims.settled_s >= SLOPE_S:
            yield memory_still(aims, span, journal)
    yield back_to_normal(aims, journal, judged[-1].ended)


def mixed(aims: Aims, journal: Journal) -> Iterator[Verdict]:
    """Others at work make a group wait for what runs already, and for no more."""
    alone = journal.measured("alone")
    for span in (span for span in journal.spans if span.judged):
        for name in alone.robots:
            before, now = (figures.slowest_s(journal, one, name) for one in (alone, span))
            over_ms = (now - before) * 1e3
            seen = f"{over_ms:.0f} ms: {now * 1e3:.0f} - {before * 1e3:.0f}"
            criterion = f"{span.name}: p99 of {name} over what it is alone"
            yield Verdict(criterion, f"<= {aims.slice_ms:g} ms", seen, over_ms <= aims.slice_ms)


def load_offered(span: Span, asks: list[Ask]) -> Verdict:
    """Whether the overload was one: the robots asked as often as they were told."""
    told = span.offered_per_s or 0.0
    rate = len(asks) / (span.ended - span.began)
    ok = rate >= LOAD_LEAST * told > 0
    return Verdict(f"{span.name}: asks a second offered", f">= {LOAD_LEAST * told:.2f}", f"{rate:.2f}", ok)


def deadlines_met(aims: Aims, span: Span, asks: list[Ask]) -> Verdict:
    """Of the admitted plans, those answered by their deadline."""
    taken = figures.admitted(asks)
    return _share(
        f"{span.name}: admitted plans that meet their deadline", len(figures.in_time(taken)), len(taken), aims.met
    )


def goodput(aims: Aims, span: Span, asks: list[Ask], capacity: float) -> Verdict:
    """Plans in time a second, over what the service makes without deadlines and refusals."""
    good = sum(ask.ended <= span.ended for ask in figures.in_time(asks)) / (span.ended - span.began)
    share = good / capacity
    aim, seen = f">= {aims.goodput:.0%} of capacity", f"{share:.0%}: {good:.2f} of {capacity:.2f} plans/s"
    return Verdict(f"{span.name}: plans answered in time", aim, seen, share >= aims.goodput)


def refusals_quick(aims: Aims, span: Span, asks: list[Ask], health_s: list[float]) -> Verdict:
    """A refusal costs hardly more than the cheapest request does at the same time; none is none too slow."""
    refused = [ask.seconds for ask in asks if ask.outcome == "refused"]
    name, aim = f"{span.name}: a refusal's p99 over /healthz's", f"<= {aims.refusal_ms:g} ms"
    slow, bare = figures.percentile(refused, 99), figures.percentile(health_s, 99)
    if slow is None:
        return Verdict(name, aim, "none was refused", True)
    if bare is None:
        return Verdict(name, aim, "/healthz was not measured", False)
    over_ms = (slow - bare) * 1e3
    return Verdict(name, aim, f"{over_ms:.1f} ms: {slow * 1e3:.1f} - {bare * 1e3:.1f}", over_ms <= aims.refusal_ms)


def memory_still(aims: Aims, span: Span, journal: Journal) -> Verdict:
    """The service's resident memory does not grow once the overload has set in."""
    name, aim = f"{span.name}: growth of resident memory", f"<= {aims.growth_mb_min:g} MB/min"
    seen = [one for one in figures.within(journal.memory, span) if one.at >= span.began + aims.settled_s]
    per_s = figures.slope(seen)
    if per_s is None:
        return Verdict(name, aim, f"not measured: {len(seen)} readings", False)
    growth = per_s * 60 / MB
    return Verdict(name, aim, f"{growth:.2f} MB/min over {len(seen)} readings", growth <= aims.growth_mb_min)


def back_to_normal(aims: Aims, journal: Journal, ended: float) -> Verdict:
    """A lone robot is served as before, soon after the overload ends."""
    lone = figures.lone_s(journal)
    limit = aims.normal * lone
    since = figures.normal_after_s(journal.of("recovery"), ended, limit)
    aim = f"p50 <= {limit * 1e3:.0f} ms within {aims.normal_within_s:g} s"
    seen = "never" if since is None else f"after {since:.1f} s"
    return Verdict("latency back to normal", aim, seen, since is not None and since <= aims.normal_within_s)


def table(verdicts: list[Verdict]) -> str:
    """The verdicts as text, a line each."""
    rows = [("criterion", "aim", "seen", "ok")]
    rows += [(one.criterion, one.aim, one.seen, "yes" if one.ok else "NO") for one in verdicts]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _none(what: str, count: int, words: str = "") -> Verdict:
    return Verdict(what, "0", f"{count}: {words}" if words else str(count), count == 0)


def _share(what: str, part: int, whole: int, aim: float) -> Verdict:
    share = part / whole if whole else 0.0
    return Verdict(what, f">= {aim:.0%}", f"{share:.1%}: {part} of {whole}", share >= aim)


def _words(asks: list[Ask]) -> str:
    return asks[0].words[:80] if asks else ""
