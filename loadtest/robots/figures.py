"""What a run comes to: rates, percentiles, shares and slopes of a journal.

Called while the run goes on (for what later phases rely on), for the results, and by the verdicts. Seconds in, seconds
out; only the results are in milliseconds and megabytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from loadtest.robots.journal import Ask, Journal, Span, Timed

NORMAL_WINDOW_S = 3.0
NORMAL_LEAST = 3
"""Plans that a window needs before its median says anything."""


def percentile(values: Iterable[float], q: float) -> float | None:
    """The q-th percentile (0 to 100); None of nothing."""
    found = list(values)
    return float(np.percentile(found, q)) if found else None


def answered(asks: Iterable[Ask]) -> list[Ask]:
    return [ask for ask in asks if ask.outcome == "answered"]


def within(values: Iterable[Timed], span: Span) -> list[Timed]:
    """What was seen during a phase."""
    return [one for one in values if span.began <= one.at <= span.ended]


def capacity(journal: Journal, what: str = "capacity") -> float:
    """Plans a second in the phase that measures capacity, or `floor`; until its last plan is answered.

    Raises LookupError when none has.
    """
    span = journal.measured(what)
    done = answered(journal.of(span.name))
    if not done:
        raise LookupError(f"phase {span.name} measures {what}, and no plan was answered in it")
    return len(done) / (max(ask.ended for ask in done) - span.began)


def lone_s(journal: Journal) -> float:
    """The median plan in the phase that measures a lone robot. Raises LookupError when none has."""
    span = journal.measured("lone")
    median = percentile((ask.seconds for ask in answered(journal.of(span.name))), 50)
    if median is None:
        raise LookupError(f"phase {span.name} measures a lone robot, and no plan was answered in it")
    return median


def slowest_s(journal: Journal, span: Span, group: str) -> float:
    """The p99 of a group's plans in a phase. Raises LookupError when none was answered."""
    slowest = percentile((ask.seconds for ask in answered(journal.of(span.name)) if ask.group == group), 99)
    if slowest is None:
        raise LookupError(f"phase {span.name}: no plan of {group} was answered")
    return slowest


@dataclass(frozen=True, slots=True)
class Lateness:
    """An answer with actions that reached its robot after its deadline: by how much, and how much of that this
    process and the network may be to blame for."""

    late_s: float
    allowed_s: float

    @property
    def beyond(self) -> bool:
        return self.late_s > self.allowed_s


def lateness(journal: Journal, span: Span) -> list[Lateness]:
    """Every answer of a phase that came after its deadline as the robot saw it.

    Allowed is the longest this process slept over while the robot waited, plus the phase's p99 of /healthz.
    """
    network = percentile((probe.value for probe in within(journal.health, span)), 99) or 0.0
    dues = np.array([lag.at for lag in journal.lags])
    delays = np.array([lag.value for lag in journal.lags])
    found = []
    for ask in answered(journal.of(span.name)):
        if ask.deadline_s is not None and ask.seconds > ask.deadline_s:
            overlapping = delays[(dues <= ask.ended) & (dues + delays >= ask.sent)]
            slept = float(overlapping.max()) if len(overlapping) else 0.0
            found.append(Lateness(ask.seconds - ask.deadline_s, slept + network))
    return found


def sent_late(asks: Iterable[Ask]) -> list[float]:
    """Seconds after the deadline, on the service's own clock, of every answer that it sent with actions too late."""
    late = []
    for ask in answered(asks):
        assert ask.reply is not None, "an answered ask has a reply"
        if ask.deadline_s is not None and ask.reply.served_s > ask.deadline_s:
            late.append(ask.reply.served_s - ask.deadline_s)
    return late


def in_time(asks: Iterable[Ask]) -> list[Ask]:
    """Answers that the service sent by their deadline, or that had none."""
    return [
        ask
        for ask in answered(asks)
        if ask.reply is not None and (ask.deadline_s is None or ask.reply.served_s <= ask.deadline_s)
    ]


def admitted(asks: Iterable[Ask]) -> list[Ask]:
    """All but the refused: answered, missed, failed, lost."""
    return [ask for ask in asks if ask.outcome != "refused"]


def repeated(asks: Iterable[Ask]) -> int:
    """Answers that came again for another ask of the same robot."""
    named = Counter((ask.robot, ask.reply.chunk_id) for ask in asks if ask.reply is not None)
    return sum(count - 1 for count in named.values())


def unaccounted(asks: Iterable[Ask]) -> int:
    """Sequence numbers that a robot used and of which nothing is known, or that ended twice."""
    numbers: dict[str, list[int]] = {}
    for ask in asks:
        numbers.setdefault(ask.robot, []).append(ask.sequence)
    return sum(len(set(range(max(seen) + 1)) ^ set(seen)) + len(seen) - len(set(seen)) for seen in numbers.values())


def slope(values: Sequence[Timed]) -> float | None:
    """Growth a second, None of fewer than three values: the median of the slopes between any two (Theil and Sen).

    Memory that is given back for a moment and taken again (protobuf trims the heap now and then) is no trend.
    """
    if len(values) < 3:
        return None
    at, value = np.array([one.at for one in values]), np.array([one.value for one in values])
    first, last = np.triu_indices(len(values), 1)
    return float(np.median((value[last] - value[first]) / (at[last] - at[first])))


def jain(counts: Iterable[float]) -> float | None:
    """Jain's fairness index: 1 when all have the same, 1/n when one has all; None when nobody has any."""
    shares = np.array(list(counts), float)
    return float(shares.sum() ** 2 / (len(shares) * (shares**2).sum())) if shares.any() else None


def normal_after_s(asks: Iterable[Ask], since: float, limit_s: float) -> float | None:
    """Seconds after `since` until a plan takes at most `limit_s`, and so does the median of the next NORMAL_WINDOW_S.

    None when that never is so.
    """
    done = sorted(answered(asks), key=lambda ask: ask.sent)
    for first in done:
        window = [ask.seconds for ask in done if 0 <= ask.sent - first.sent <= NORMAL_WINDOW_S]
        median = percentile(window, 50)
        if len(window) >= NORMAL_LEAST and first.seconds <= limit_s and median is not None and median <= limit_s:
            return max(first.sent - since, 0.0)
    return None
