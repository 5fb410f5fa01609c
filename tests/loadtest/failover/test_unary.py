"""A robot of unary requests: what it sends again, what it observes anew, and what it logs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from loadtest.failover.fleet import STEPS, Logbook, Role
from loadtest.failover.unary import UnaryRobot
from loadtest.robots.frames import Frames
from tests.clients.chunks import chunk_of
from wavserve.core.errors import (
    InvalidRequest,
    NotReady,
    OutcomeUnknown,
    Overloaded,
    SequenceConflict,
    UnknownSession,
    WavserveError,
)
from wavserve.core.messages import ActionChunk, Observation

ROLE = Role("robot", "grpc", None, seed=3)


class Gateway:
    """Answers as the test says: an error, or a chunk for None."""

    gateway = "a"

    def __init__(self, *answers: WavserveError | None) -> None:
        self.answers = list(answers)
        self.sent: list[Observation] = []

    async def plan(self, observation: Observation) -> ActionChunk:
        self.sent.append(observation)
        error = self.answers.pop(0)
        if error is not None:
            raise error
        chunk = chunk_of(
            np.zeros((2, 7), np.float32),
            observation.control_step,
            observation.sequence,
            session_id="session",
            chunk_id=f"{observation.sequence}",
        )
        return replace(chunk, receipt=replace(chunk.receipt, sequence=observation.sequence))

    async def close(self) -> None:
        pass


async def turns(gateway: Any, num: int) -> Logbook:
    logbook = Logbook()
    robot = UnaryRobot(ROLE, gateway, Frames.recorded(), logbook)
    for _ in range(num):
        await robot.turn("phase")
    return logbook


def served(error: WavserveError) -> WavserveError:
    """As a server sent it."""
    error.error_id = "id"
    return error


async def test_while_the_outcome_is_unknown_the_same_request_is_sent_again() -> None:
    gone, unknown, refused = NotReady("socket closed"), served(OutcomeUnknown("?")), served(Overloaded("full", 0.0))
    gateway = Gateway(None, gone, refused, unknown, served(NotReady("repair")), None)
    logbook = await turns(gateway, 2)
    assert len({id(each) for each in gateway.sent[1:]}) == 1
    assert [each.outcome for each in logbook.log.requests] == ["answered", "answered"]
    assert [each.session for each in logbook.answers] == [0, 0]


class Slow(Gateway):
    """Answers at once, with receipts of plans that took an hour."""

    async def plan(self, observation: Observation) -> ActionChunk:
        chunk = await super().plan(observation)
        return replace(chunk, receipt=replace(chunk.receipt, stage_s={"total": 3600.0}))


class Moving(Slow):
    """Its client asks another gateway at each call."""

    async def plan(self, observation: Observation) -> ActionChunk:
        self.gateway += "b"
        return await super().plan(observation)


async def test_a_receipt_is_of_the_first_attempt() -> None:
    first = await turns(Slow(None), 1)
    assert "receipt: its total is longer than the service took" in first.log.requests[0].contradictions
    for gateway in (Moving(None), Slow(NotReady("socket closed"), None)):
        again = await turns(gateway, 1)
        assert [each.contradictions for each in again.log.requests] == [()]


async def test_after_a_refusal_it_observes_anew() -> None:
    gateway = Gateway(None, served(Overloaded("full", 0.0)), None)
    logbook = await turns(gateway, 3)
    assert [each.outcome for each in logbook.log.requests] == ["answered", "refused", "answered"]
    assert [each.sequence for each in gateway.sent] == [0, 1, 2]
    assert [each.executed_steps for each in gateway.sent] == [0, STEPS, 2 * STEPS]
    assert logbook.final == []


async def test_a_lost_session_is_followed_by_another() -> None:
    gateway = Gateway(None, served(UnknownSession("session_id", "a session", "none")), None)
    logbook = await turns(gateway, 3)
    assert [each.session_id for each in gateway.sent] == [None, "session", None]
    assert [each.session for each in logbook.answers] == [0, 1]
    assert logbook.final == []


async def test_an_error_that_no_retry_mends_is_noted() -> None:
    for error in (InvalidRequest("state", 8, 7), SequenceConflict("sequence", 1, 2)):
        logbook = await turns(Gateway(NotReady("socket closed"), served(error)), 1)
        assert [each.outcome for each in logbook.log.requests] == ["failed"]
        assert len(logbook.final) == 1


async def test_an_answer_to_another_request_contradicts() -> None:
    class Confused(Gateway):
        async def plan(self, observation: Observation) -> ActionChunk:
            return replace(await super().plan(observation), sequence=7)

    logbook = await turns(Confused(None), 1)
    assert "sequence" in logbook.log.requests[0].contradictions[0]
    assert np.isfinite(logbook.answers[0].chunk.actions).all()
