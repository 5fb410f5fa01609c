"""The aims of a failover run: each one is missed when a run shows what it forbids."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from loadtest.failover.figures import evaluate, gaps_by_kind
from loadtest.failover.fleet import Answer, Logbook, Role
from loadtest.failover.kills import Kill
from loadtest.failover.oracle import Verdict, recorded_plans
from loadtest.robots.replies import from_chunk
from tests.clients.chunks import chunk_of
from wavserve.core.messages import ActionChunk

ROLE = Role("robot", "grpc", None, seed=0)
DEATH = Kill("gateway", "gateway 0", 10.0, 20.0)


def chunk(number: int) -> ActionChunk:
    return chunk_of(np.zeros((2, 1), np.float32), sequence=number)


def logbook_of(*times: float) -> Logbook:
    """A robot that got an answer at each of these times."""
    logbook = Logbook()
    for number, at in enumerate(times):
        answer = Answer(ROLE, 0, None, chunk(number), at)
        request = replace(logbook.asked(ROLE, "kills", number), sent=at, ended=at)
        logbook.log.requests.append(replace(request, outcome="answered", reply=from_chunk(answer.chunk)))
        logbook.answers.append(answer)
    return logbook


def missed(logbook: Logbook, verdict: Verdict | None = None, twice: tuple[str, ...] = ()) -> list[str]:
    aims = evaluate(logbook, [ROLE], [DEATH], verdict or Verdict(), twice)
    return [aim["name"] for aim in aims if not aim["met"]]


def good() -> Logbook:
    return logbook_of(9.0, 11.0, 13.0, 15.5, 18.0, 20.5)


def test_a_good_run_meets_every_aim() -> None:
    assert missed(good()) == []


def test_a_long_gap_is_one_that_overlaps_the_death() -> None:
    late = missed(logbook_of(9.0, 12.5, 15.0, 18.0, 20.5))
    assert late == ["longest gap at a gateway's death, s", "longest gap until it has started again, s"]
    assert missed(logbook_of(1.0, 9.0, 11.0, 13.0, 15.5, 18.0, 20.5, 30.0)) == []


def test_a_gap_while_the_gateway_starts_is_told_apart_from_one_at_its_death() -> None:
    during = missed(logbook_of(9.0, 11.0, 13.0, 15.5, 19.0, 20.5))
    assert during == ["longest gap until it has started again, s"]


def test_gaps_are_told_by_kind_of_kill() -> None:
    answers = logbook_of(1.0, 9.0, 11.5, 21.0, 40.0).answers
    kills = [DEATH, Kill("redis", "redis", 30.0, 31.0), Kill("redis", "redis", 5.0, 6.0)]
    found = gaps_by_kind(answers, kills)
    assert found["gateway"]["longest_gap_s"] == 9.5
    assert found["redis"]["longest_gap_s"] == 19.0
    assert found["redis"]["kills"] == 2


def test_a_robot_that_is_not_served_again_is_noticed() -> None:
    assert missed(logbook_of(9.0, 11.0, 13.0, 15.5, 18.0)) == ["robots served after the last repair"]


def test_a_request_without_an_end_is_noticed() -> None:
    logbook = good()
    logbook.ended(logbook.asked(ROLE, "kills", 6), "lost", "no answer")
    unrecorded = good()
    unrecorded.log.requests.pop(2)
    assert missed(logbook) == missed(unrecorded) == ["requests without an answer or an error"]


def test_an_answer_that_came_twice_is_noticed() -> None:
    logbook = good()
    again = replace(logbook.log.requests[-1], sequence=6)
    logbook.log.requests.append(again)
    assert missed(logbook) == ["answers given twice"]


def test_an_error_that_no_retry_mends_is_noticed() -> None:
    logbook = good()
    logbook.final.append("robot: InvalidRequest")
    assert missed(logbook) == ["errors that no retry mends"]


@pytest.mark.parametrize(("actions", "wrong"), [(2e-5, True), (5e-6, False), (np.nan, True)])
def test_a_difference_is_noticed(actions: float, wrong: bool) -> None:
    verdict, logbook = Verdict(), good()
    verdict.compare(logbook.answers[0], np.full((2, 1), actions, np.float32), "the lone robot's")
    assert bool(missed(logbook, verdict)) is wrong


def test_another_number_of_steps_is_a_difference() -> None:
    verdict = Verdict()
    verdict.compare(good().answers[0], np.zeros((3, 1), np.float32), "its record")
    assert len(verdict.wrong) == 1


@pytest.mark.parametrize(("at", "explained"), [(9.5, True), (7.5, False), (10.5, False)])
def test_only_a_gateway_s_death_explains_a_missing_record(at: float, explained: bool) -> None:
    verdict = Verdict()
    verdict.unrecorded.append(Answer(ROLE, 0, None, chunk(0), at))
    assert missed(good(), verdict) == ([] if explained else ["answers without a record, and no gateway died"])


def test_a_plan_that_two_gateways_committed_is_noticed(tmp_path: Path) -> None:
    for gateway, names in (("one", ("a-b-00000001", "a-b-00000002")), ("two", ("a-b-00000002", "c-00000001"))):
        (tmp_path / gateway).mkdir()
        for name in names:
            (tmp_path / gateway / f"{name}.safetensors").touch()
        (tmp_path / gateway / "d-00000001.partial").touch()
    recorded, twice = recorded_plans([tmp_path / "one", tmp_path / "two"])
    assert sorted(recorded) == [("a-b", 1), ("a-b", 2), ("c", 1)]
    assert twice == ["a-b-00000002.safetensors"]
    assert missed(good(), twice=tuple(twice)) == ["plans committed twice"]
