"""Each criterion on made-up runs: met by a good one, and failing by the one thing that is wrong in another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from loadtest.robots import figures, verdicts
from loadtest.robots.journal import Journal, Span, Timed
from loadtest.robots.scenario import Aims
from tests.loadtest.robots.rig import CAPACITY, LONE_S, OVERLOAD, answered, ended, overload_run, reply


def failing(journal: Journal) -> list[str]:
    told = [*verdicts.nothing_lost(journal), verdicts.nothing_late(journal)]
    told += verdicts.overload(Aims(), journal)
    return [one.criterion for one in told if not one.ok]


def test_a_good_run_meets_every_criterion() -> None:
    assert failing(overload_run()) == []


def test_what_the_criteria_rest_on() -> None:
    journal = overload_run()
    assert figures.capacity(journal) == pytest.approx(CAPACITY, rel=0.01)
    assert figures.lone_s(journal) == pytest.approx(LONE_S)


def lose(journal: Journal) -> None:
    journal.asks.append(ended("lost", 110.0, 120.0, robot="grpc-x", words="ReadTimeout"))


def swallow(journal: Journal) -> None:
    """Sequence 1 of a robot ended; of 0 nothing is known."""
    journal.asks.append(ended("refused", 110.0, 0.01, robot="grpc-x", sequence=1))


def repeat(journal: Journal) -> None:
    for sequence in (0, 1):
        journal.asks.append(answered(110.0, robot="grpc-x", sequence=sequence, reply=reply(chunk_id="twice")))


def contradict(journal: Journal) -> None:
    journal.asks.append(replace(answered(110.0, robot="grpc-x"), faults=("sequence: asked 1, answered 2",)))


def fail(journal: Journal) -> None:
    journal.asks.append(ended("failed", 110.0, 0.1, robot="grpc-x", words="BackendError: gone"))


def send_late(journal: Journal) -> None:
    journal.asks.append(answered(110.0, 1.7, robot="grpc-x", reply=reply(chunk_id="x", served_s=1.65)))


def arrive_late(journal: Journal) -> None:
    """In time by the service's clock, and 90 ms late at the robot, which slept for no more than a millisecond."""
    journal.asks.append(answered(110.0, 1.69, robot="grpc-x", reply=reply(chunk_id="x", served_s=1.5)))


def ask_little(journal: Journal) -> None:
    """The robots asked 6 times a second and were told to ask 8 times."""
    journal.spans = [replace(s, offered_per_s=8.0) if s.name == "overload" else s for s in journal.spans]


def miss(journal: Journal) -> None:
    """A tenth of what was admitted."""
    journal.asks += [ended("missed", 110.0 + i, 1.6, robot=f"grpc-x{i}") for i in range(27)]


def answer_little(journal: Journal) -> None:
    """Capacity was twice as much."""
    journal.asks += [answered(i / CAPACITY, 0.4, phase="capacity", robot=f"c{i}") for i in range(100)]


def refuse_slowly(journal: Journal) -> None:
    journal.asks += [ended("refused", 110.0, 0.1, robot=f"grpc-x{i}", retry_after_s=0.5) for i in range(20)]


def grow(journal: Journal) -> None:
    journal.memory = [Timed(one.at, one.value + one.at * 2e6 / 60) for one in journal.memory]


def stay_slow(journal: Journal) -> None:
    slow = [answered(ask.sent, 0.7, phase="recovery", robot=ask.robot) for ask in journal.of("recovery")]
    journal.asks = [ask for ask in journal.asks if ask.phase != "recovery"] + slow


WRONGS: dict[Callable[[Journal], None], str] = {
    lose: "asks that nobody answered",
    swallow: "asks that nobody answered",
    repeat: "answers given twice",
    contradict: "answers that contradict their ask or their receipt",
    fail: "asks that failed otherwise",
    send_late: "plans after their deadline, given as if on time",
    arrive_late: "plans after their deadline, given as if on time",
    ask_little: "overload: asks a second offered",
    miss: "overload: admitted plans that meet their deadline",
    answer_little: "overload: plans answered in time",
    refuse_slowly: "overload: a refusal's p99 over /healthz's",
    grow: "overload: growth of resident memory",
    stay_slow: "latency back to normal",
}


@pytest.mark.parametrize(("wrong", "criterion"), WRONGS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_one_wrong_fails_one_criterion(wrong: Callable[[Journal], None], criterion: str) -> None:
    journal = overload_run()
    wrong(journal)
    assert failing(journal) == [criterion]


def test_a_late_arrival_that_jitter_explains_is_told_and_not_blamed() -> None:
    journal = overload_run()
    arrive_late(journal)
    journal.lags.append(Timed(111.0, 0.1))
    told = verdicts.nothing_late(journal)
    assert told.ok
    assert "at the robot 1, by up to 90.0 ms, 0 of them by more than jitter" in told.seen


def test_growth_before_the_phase_has_settled_does_not_count() -> None:
    journal = overload_run()
    settles = OVERLOAD[0] + Aims().settled_s
    journal.memory = [replace(one, value=one.value - 1e8 * (one.at < settles)) for one in journal.memory]
    assert failing(journal) == []


def test_a_phase_too_short_for_a_slope_is_not_judged_by_one() -> None:
    journal = overload_run()
    grow(journal)
    assert failing(journal) == ["overload: growth of resident memory"]
    short = OVERLOAD[0] + Aims().settled_s + verdicts.SLOPE_S - 1.0
    spans = [replace(s, ended=short) if s.name == "overload" else s for s in journal.spans]
    told = [one.criterion for one in verdicts.overload(Aims(), replace(journal, spans=spans))]
    assert "overload: growth of resident memory" not in told


def test_a_recovery_may_be_slow_at_first() -> None:
    journal = overload_run()
    over = OVERLOAD[1]
    for late, ok in ((3.0, True), (6.0, False)):
        asks = [
            replace(ask, ended=ask.sent + 2.0) if ask.phase == "recovery" and ask.sent < over + late else ask
            for ask in journal.asks
        ]
        told = verdicts.back_to_normal(Aims(), replace(journal, asks=asks), over)
        assert told.ok == ok, told.seen


def test_nothing_refused_is_nothing_refused_slowly() -> None:
    journal = overload_run()
    taken = [ask for ask in journal.of("overload") if ask.outcome != "refused"]
    assert verdicts.refusals_quick(Aims(), journal.span("overload"), taken, [0.004]).ok


def test_others_may_make_a_group_wait_for_a_slice() -> None:
    journal = Journal()
    spans = [("alone", "alone", False), ("mixed", None, True), ("worse", None, True)]
    journal.spans = [
        Span(name, 0.0, 10.0, {"quick": 1}, measures=what, judged=judged)  # type: ignore[arg-type]
        for name, what, judged in spans
    ]
    for phase, seconds in (("alone", 0.1), ("mixed", 0.29), ("worse", 0.31)):
        journal.asks.append(answered(1.0, seconds, phase=phase, group="quick"))
        journal.asks.append(answered(1.0, 9.0, phase=phase, group="deep"))
    assert [(one.seen, one.ok) for one in verdicts.mixed(Aims(), journal)] == [
        ("190 ms: 290 - 100", True),
        ("210 ms: 310 - 100", False),
    ]
    journal.asks.clear()
    with pytest.raises(LookupError, match="no plan of quick"):
        list(verdicts.mixed(Aims(), journal))


def test_fairness_and_slope() -> None:
    assert figures.jain([5, 5, 5, 5]) == 1.0
    assert figures.jain([8, 0, 0, 0]) == 0.25
    assert figures.jain([0, 0]) is None
    assert figures.slope([Timed(float(t), 100.0 + 3 * t) for t in range(10)]) == pytest.approx(3.0)
    dip = [Timed(float(t), 100.0 + 3 * t - 50 * (t in (1, 2))) for t in range(20)]
    assert figures.slope(dip) == pytest.approx(3.0), "memory given back for a moment is no trend"
    assert figures.slope([Timed(0.0, 1.0), Timed(1.0, 2.0)]) is None


def test_the_table_has_a_line_a_criterion() -> None:
    told = verdicts.table([verdicts.Verdict("a", "0", "3: words", False), verdicts.Verdict("bb", ">= 1", "2", True)])
    assert told.splitlines() == [
        "criterion  aim   seen      ok",
        "a          0     3: words  NO",
        "bb         >= 1  2         yes",
    ]
