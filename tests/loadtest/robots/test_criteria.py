"""Each criterion on made-up runs: a good run meets all, and a run with one fault misses one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from loadtest.robots import criteria, figures
from loadtest.robots.event_log import EventLog, PhaseRecord, Reading
from loadtest.robots.scenario import Thresholds
from tests.loadtest.robots.rig import CAPACITY, LONE_S, OVERLOAD, answered, ended, overload_run, reply


def failing(log: EventLog) -> list[str]:
    aims = [*criteria.nothing_lost(log), criteria.nothing_late(log), *criteria.overload(Thresholds(), log)]
    return [aim["name"] for aim in aims if not aim["met"]]


def test_a_good_run_meets_every_criterion() -> None:
    assert failing(overload_run()) == []


def test_what_the_criteria_rest_on() -> None:
    log = overload_run()
    assert figures.capacity(log) == pytest.approx(CAPACITY, rel=0.01)
    assert figures.lone_s(log) == pytest.approx(LONE_S)


def lose(log: EventLog) -> None:
    log.requests.append(ended("lost", 110.0, 120.0, robot="grpc-x", message="ReadTimeout"))


def swallow(log: EventLog) -> None:
    """A robot's request 1 has a record, and its request 0 has none."""
    log.requests.append(ended("refused", 110.0, 0.01, robot="grpc-x", sequence=1))


def repeat(log: EventLog) -> None:
    for sequence in (0, 1):
        log.requests.append(answered(110.0, robot="grpc-x", sequence=sequence, reply=reply(chunk_id="twice")))


def contradict(log: EventLog) -> None:
    log.requests.append(replace(answered(110.0, robot="grpc-x"), contradictions=("sequence: sent 1, answered 2",)))


def fail(log: EventLog) -> None:
    log.requests.append(ended("failed", 110.0, 0.1, robot="grpc-x", message="BackendError: gone"))


def send_late(log: EventLog) -> None:
    log.requests.append(answered(110.0, 1.7, robot="grpc-x", reply=reply(chunk_id="x", served_s=1.65)))


def arrive_late(log: EventLog) -> None:
    """In time by the service's clock, 90 ms late at the robot; the event loop was 1 ms late at most."""
    log.requests.append(answered(110.0, 1.69, robot="grpc-x", reply=reply(chunk_id="x", served_s=1.5)))


def offer_little(log: EventLog) -> None:
    """The robots send 6 requests a second, but the phase states 8."""
    log.phases = [replace(s, offered_per_s=8.0) if s.name == "overload" else s for s in log.phases]


def miss(log: EventLog) -> None:
    """A tenth of the admitted plans miss their deadline."""
    log.requests += [ended("missed", 110.0 + i, 1.6, robot=f"grpc-x{i}") for i in range(27)]


def answer_little(log: EventLog) -> None:
    """The capacity is twice as high."""
    log.requests += [answered(i / CAPACITY, 0.4, phase="capacity", robot=f"c{i}") for i in range(100)]


def refuse_slowly(log: EventLog) -> None:
    log.requests += [ended("refused", 110.0, 0.1, robot=f"grpc-x{i}", retry_after_s=0.5) for i in range(20)]


def grow(log: EventLog) -> None:
    log.memory = [Reading(one.at, one.value + one.at * 2e6 / 60) for one in log.memory]


def stay_slow(log: EventLog) -> None:
    recovering = log.requests_of("recovery")
    slow = [answered(request.sent, 0.7, phase="recovery", robot=request.robot) for request in recovering]
    log.requests = [request for request in log.requests if request.phase != "recovery"] + slow


FAULTS: dict[Callable[[EventLog], None], str] = {
    lose: "requests without an answer",
    swallow: "requests without an answer",
    repeat: "answers sent twice",
    contradict: "answers that contradict their request or their receipt",
    fail: "requests that failed with another error",
    send_late: "plans sent as if on time after their deadline",
    arrive_late: "plans sent as if on time after their deadline",
    offer_little: "overload: requests/s offered",
    miss: "overload: admitted plans in time",
    answer_little: "overload: plans answered in time",
    refuse_slowly: "overload: p99 of refusals above /healthz's p99",
    grow: "overload: growth of resident memory",
    stay_slow: "latency back to normal",
}


@pytest.mark.parametrize(("fault", "name"), FAULTS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_one_fault_fails_one_criterion(fault: Callable[[EventLog], None], name: str) -> None:
    log = overload_run()
    fault(log)
    assert failing(log) == [name]


def test_a_late_arrival_that_jitter_explains_is_reported_and_meets_the_aim() -> None:
    log = overload_run()
    arrive_late(log)
    log.lags.append(Reading(111.0, 0.1))
    aim = criteria.nothing_late(log)
    assert aim["met"]
    assert aim["seen"] == "0 sent late; 1 late at the robot, by up to 90.0 ms, 0 of them by more than jitter"


def test_growth_before_the_phase_has_settled_does_not_count() -> None:
    log = overload_run()
    settles = OVERLOAD[0] + Thresholds().settled_s
    log.memory = [replace(one, value=one.value - 1e8 * (one.at < settles)) for one in log.memory]
    assert failing(log) == []


def test_a_phase_too_short_for_a_slope_is_not_judged_by_one() -> None:
    log = overload_run()
    grow(log)
    assert failing(log) == ["overload: growth of resident memory"]
    short = OVERLOAD[0] + Thresholds().settled_s + criteria.MIN_SLOPE_S - 1.0
    phases = [replace(s, ended=short) if s.name == "overload" else s for s in log.phases]
    names = [aim["name"] for aim in criteria.overload(Thresholds(), replace(log, phases=phases))]
    assert "overload: growth of resident memory" not in names


def test_a_recovery_may_be_slow_at_first() -> None:
    log = overload_run()
    over = OVERLOAD[1]
    for late, met in ((3.0, True), (6.0, False)):
        requests = [
            replace(one, ended=one.sent + 2.0) if one.phase == "recovery" and one.sent < over + late else one
            for one in log.requests
        ]
        aim = criteria.recovery(Thresholds(), replace(log, requests=requests), over)
        assert aim["met"] == met, aim["seen"]


def test_refusal_latency_is_met_when_nothing_was_refused() -> None:
    log = overload_run()
    admitted = [request for request in log.requests_of("overload") if request.outcome != "refused"]
    aim = criteria.refusal_latency(Thresholds(), log.phase("overload"), admitted, [0.004])
    assert (aim["seen"], aim["met"]) == ("nothing was refused", True)


def test_others_may_make_a_group_wait_for_a_slice() -> None:
    log = EventLog()
    phases = [("alone", "alone", False), ("mixed", None, True), ("worse", None, True)]
    log.phases = [
        PhaseRecord(name, 0.0, 10.0, {"quick": 1}, measures=measures, judged=judged)
        for name, measures, judged in phases
    ]
    for phase, seconds in (("alone", 0.1), ("mixed", 0.29), ("worse", 0.31)):
        log.requests.append(answered(1.0, seconds, phase=phase, group="quick"))
        log.requests.append(answered(1.0, 9.0, phase=phase, group="deep"))
    assert [(aim["seen"], aim["met"]) for aim in criteria.mixed(Thresholds(), log)] == [
        ("190 ms: 290 - 100", True),
        ("210 ms: 310 - 100", False),
    ]
    log.requests.clear()
    with pytest.raises(LookupError, match="no plan of quick"):
        list(criteria.mixed(Thresholds(), log))


def test_fairness_and_slope() -> None:
    assert figures.jain([5, 5, 5, 5]) == 1.0
    assert figures.jain([8, 0, 0, 0]) == 0.25
    assert figures.jain([0, 0]) is None
    assert figures.slope([Reading(float(t), 100.0 + 3 * t) for t in range(10)]) == pytest.approx(3.0)
    dip = [Reading(float(t), 100.0 + 3 * t - 50 * (t in (1, 2))) for t in range(20)]
    assert figures.slope(dip) == pytest.approx(3.0), "memory released for a moment makes no trend"
    assert figures.slope([Reading(0.0, 1.0), Reading(1.0, 2.0)]) is None
