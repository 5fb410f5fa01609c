"""The plugin's sessions against served edges: one session for each environment, and what it sends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lerobot_policy_wavserve.sessions import Asking, Sessions, UnarySession
from tests.clients.chunks import chunk_of
from tests.edge.conftest import running, served
from tests.edge.fakes import CHUNK
from tests.edge.served import Served
from tests.integrations.policies import POLICY, rows, seen
from wavserve.clients.plan_client import PlanClient
from wavserve.core.errors import ContractMismatch, InvalidAnswer, InvalidRequest, Overloaded, UnknownSession
from wavserve.core.messages import ActionChunk, Observation
from wavserve.core.rtc import RtcRequest

__all__ = ["running", "served"]


class Answering:
    """A planner whose chunks a test decides: `[16, A]`, all of number `n` for the n-th request."""

    def __init__(self, **changes: Any) -> None:
        self.changes = changes
        self.asked: list[Observation] = []
        self.resets: list[str] = []
        self.ended: list[str] = []
        self.expired = False

    def reset(self, session_id: str) -> None:
        self.resets.append(session_id)
        if self.expired:
            raise UnknownSession("session_id", "a session", session_id)

    def end(self, session_id: str) -> None:
        self.ended.append(session_id)
        if self.expired:
            raise Overloaded("full", 2.5)

    def plan(self, observation: Observation) -> ActionChunk:
        self.asked.append(observation)
        number = len(self.asked)
        actions = np.full((CHUNK, len(POLICY.action.names)), number, np.float32)
        session_id = observation.session_id or f"session-{number}"
        chunk = chunk_of(actions, observation.control_step, observation.sequence, session_id=session_id)
        chunk = replace(chunk, receipt=replace(chunk.receipt, policy_digest=POLICY.digest))
        return replace(chunk, **self.changes)


@contextmanager
def sessions_over(service: Any, **asking: Any) -> Iterator[Sessions]:
    asks = Asking(**({"jpeg_quality": None} | asking))
    sessions = Sessions(POLICY, lambda index: UnarySession(service, POLICY, asks), seed=10)
    yield sessions
    sessions.close()


@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_each_environment_has_a_plan_of_its_own(served: Served, transport: str) -> None:
    asks = {"deadline_ms": 60_000, "planner": {"num_iterations": 1}}
    with PlanClient(getattr(served.address, transport)) as client, sessions_over(client, **asks) as sessions:
        actions = sessions.plan([seen(0), seen(1), seen(2)], 0)
    assert [each.shape for each in actions] == [(CHUNK, 7)] * 3
    requests = sorted(served.policy.requests, key=lambda each: each.instruction)
    assert [each.instruction for each in requests] == ["task 0", "task 1", "task 2"]
    assert [each.state[-1] for each in requests] == [0.0, 1.0, 2.0]
    assert [each.seed for each in requests] == [10, 11, 12]
    assert all(np.array_equal(each.images["wrist"], seen(i).images["wrist"]) for i, each in enumerate(requests))
    assert requests[0].options == {"num_iterations": 1}
    assert None not in served.policy.deadlines


def test_a_session_goes_on_with_what_was_executed() -> None:
    planner = Answering()
    with sessions_over(planner) as sessions:
        for step in (0, 3, 3, 8):
            sessions.plan([seen()], step)
    facts = [(each.session_id, each.sequence, each.control_step, each.executed_steps) for each in planner.asked]
    assert facts == [(None, 0, 0, 0), ("session-1", 1, 3, 3), ("session-1", 2, 3, 0), ("session-1", 3, 8, 5)]


def test_a_reset_begins_an_episode_in_the_same_session() -> None:
    planner = Answering()
    with sessions_over(planner) as sessions:
        for step in (0, 4):
            sessions.plan([seen()], step)
        sessions.reset()
        for step in (0, 4):
            sessions.plan([seen()], step)
    assert planner.resets == ["session-1"]
    facts = [(each.session_id, each.sequence, each.executed_steps, each.seed) for each in planner.asked]
    assert facts == [(None, 0, 0, 10), ("session-1", 1, 4, 10), ("session-1", 2, 0, 11), ("session-1", 3, 4, 11)]


def test_a_session_that_the_service_no_longer_has_is_opened_anew_by_a_reset() -> None:
    planner = Answering()
    with sessions_over(planner) as sessions:
        sessions.plan([seen()], 0)
        sessions.reset()
        planner.expired = True
        sessions.plan([seen()], 0)
    assert [each.session_id for each in planner.asked] == [None, None]


def test_a_reset_that_fails_is_asked_for_again(served: Served) -> None:
    with PlanClient(served.address.grpc) as client, sessions_over(client) as sessions:
        sessions.plan([seen()], 0)
        sessions.reset()
        served.policy.error = Overloaded("full", 2.5)
        with pytest.raises(Overloaded):
            sessions.plan([seen()], 0)
        served.policy.error = None
        sessions.plan([seen()], 0)
    assert len(served.policy.resets) == 2
    assert [each.executed_steps for each in served.policy.requests] == [0, 0]


def test_a_batch_of_another_size_is_refused_until_a_reset() -> None:
    with sessions_over(Answering()) as sessions:
        sessions.plan([seen(), seen()], 0)
        with pytest.raises(InvalidRequest, match="batch: expected 2 environments, as since the last reset, got 1"):
            sessions.plan([seen()], 1)
        sessions.reset()
        assert len(sessions.plan([seen()], 0)) == 1
        sessions.reset()
        assert len(sessions.plan([seen(), seen(), seen()], 0)) == 3


def test_after_an_error_the_same_steps_are_told_again(served: Served) -> None:
    with PlanClient(served.address.grpc) as client, sessions_over(client) as sessions:
        sessions.plan([seen()], 0)
        served.policy.error = Overloaded("full", 2.5)
        with pytest.raises(Overloaded):
            sessions.plan([seen()], 5)
        served.policy.error = None
        sessions.plan([seen()], 6)
    assert [(each.sequence, each.executed_steps) for each in served.policy.requests] == [(0, 0), (1, 5), (2, 6)]


def test_an_environment_that_got_its_plan_does_not_tell_its_steps_twice() -> None:
    class Full(Answering):
        """Answers the first environment only, while it is full."""

        full = False

        def plan(self, observation: Observation) -> ActionChunk:
            if self.full and observation.instruction == "task 1":
                raise Overloaded("full", 2.5)
            return super().plan(observation)

    planner = Full()
    with sessions_over(planner) as sessions:
        sessions.plan([seen(0), seen(1)], 0)
        planner.full = True
        with pytest.raises(Overloaded):
            sessions.plan([seen(0), seen(1)], 8)
        planner.full = False
        sessions.plan([seen(0), seen(1)], 8)
    told = [[each.executed_steps for each in planner.asked if each.instruction == f"task {i}"] for i in (0, 1)]
    assert told == [[0, 8, 0], [0, 8]]


def test_sessions_that_are_closed_or_left_out_end_at_the_service() -> None:
    planner = Answering()
    with sessions_over(planner) as sessions:
        sessions.plan([seen()], 0)
        sessions.reset()
        sessions.plan([seen(), seen()], 0)
        sessions.reset()
        sessions.plan([seen()], 0)
        assert len(planner.ended) == 1
        planner.expired = True
        sessions.close()
        sessions.close()
    assert planner.ended[1:] == ["session-1"], "once, also where the service refuses"


def test_what_is_left_over_travels_with_as_much_delay_as_the_service_takes() -> None:
    planner = Answering()
    with sessions_over(planner, rtc=RtcRequest(mode="rtc_guided", execution_horizon=8)) as sessions:
        sessions.plan([seen()], 0, [rows(0.0)], inference_delay=2)
        sessions.plan([seen()], 3, [rows(0.5)], inference_delay=2)
        sessions.plan([seen()], 5, [rows(0.5, num_steps=1)], inference_delay=2)
        sessions.plan([seen()], 21, [rows(0.5)], inference_delay=2)
    sent = [(each.rtc.inference_delay, len(each.rtc.prev_chunk_left_over)) for each in planner.asked if each.rtc]
    assert sent == [(0, 4), (2, 4), (1, 1), (0, 0)]
    assert {each.rtc.mode for each in planner.asked if each.rtc} == {"rtc_guided"}


def test_a_chunk_ends_where_it_becomes_invalid() -> None:
    with sessions_over(Answering(valid_until_step=5)) as sessions:
        [actions] = sessions.plan([seen()], 2)
        assert len(actions) == 3
        with pytest.raises(InvalidAnswer):
            sessions.plan([seen()], 5)


@pytest.mark.parametrize(
    "changes",
    [{"first_control_step": 1}, {"actions": np.zeros((16, 6), np.float32)}, {"actions": np.full((16, 7), np.nan)}],
    ids=["another step", "another size", "not finite"],
)
def test_an_answer_that_does_not_fit_is_refused(changes: dict[str, Any]) -> None:
    with sessions_over(Answering(**changes)) as sessions, pytest.raises(InvalidAnswer):
        sessions.plan([seen()], 0)


def test_a_chunk_of_another_policy_is_refused() -> None:
    planner = Answering()
    with sessions_over(planner) as sessions:
        sessions.plan([seen()], 0)
        receipt = planner.plan(planner.asked[0]).receipt
        planner.changes = {"receipt": replace(receipt, policy_digest="another")}
        with pytest.raises(ContractMismatch, match="policy_digest"):
            sessions.plan([seen()], 1)
