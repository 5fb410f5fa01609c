"""Epochs of a robot's session: who may resume it, and that nothing of an older epoch is committed."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

import numpy as np
import pytest

from tests.clock import ManualClock, yield_to_loop
from tests.planning.rig import MakeRig, Rig, RigOptions, example_request
from tests.policy.requests import SPEC
from wavserve.core.errors import InvalidRequest, NotReady, OutcomeUnknown, SequenceConflict, StaleEpoch, UnknownSession
from wavserve.core.types import PlanRequest
from wavserve.policy.epochs import Epochs, OpenedSession
from wavserve.policy.sessions import CommitResult, MemorySessions, Session, SessionStore


def request(opened: OpenedSession, seed: int = 1, **changes: object) -> PlanRequest:
    """A request of a stream."""
    fields = {"session_id": opened.session_id, "epoch": opened.epoch, "sequence": opened.next_sequence}
    return example_request(SPEC, seed, **{**fields, **changes})


async def test_a_fresh_session_begins_with_epoch_one(rig: Rig) -> None:
    opened = await rig.policy.open_session("arm", None, None)
    assert (opened.epoch, opened.next_sequence, opened.resumed) == (1, 0, False)
    chunk = await rig.policy.plan(request(opened))
    assert (chunk.session_id, chunk.epoch) == (opened.session_id, 1)


async def test_a_session_that_is_resumed_keeps_its_memory_in_a_new_epoch(rig: Rig) -> None:
    opened = await rig.policy.open_session("arm", None, None)
    first = await rig.policy.plan(request(opened, sequence=4))
    again = await rig.policy.open_session("arm", opened.session_id, 10.0)
    assert again == OpenedSession(opened.session_id, 2, 5, True)
    later = await rig.policy.plan(request(again, 2, executed_steps=2))
    fresh = await rig.policy.plan(request(await rig.policy.open_session("other", None, None), 2, sequence=5))
    assert (first.epoch, later.epoch) == (1, 2)
    assert not np.array_equal(later.actions, fresh.actions)


async def test_who_cannot_resume_gets_fresh_memory(make_rig: MakeRig) -> None:
    now = ManualClock()
    rig = await make_rig(RigOptions(unix_clock=now))
    opened = await rig.policy.open_session("arm", None, None)
    now.now += 10.1
    for robot, session_id, silent_s in [
        ("other", opened.session_id, 0.0),
        ("arm", "unknown", 0.0),
        ("arm", opened.session_id, 10.1),
    ]:
        fresh = await rig.policy.open_session(robot, session_id, silent_s)
        assert fresh.session_id != opened.session_id
        assert (fresh.epoch, fresh.next_sequence, fresh.resumed) == (1, 0, False)
    of_another_policy = Epochs(rig.sessions, "another digest", now)
    assert not (await of_another_policy.open("arm", opened.session_id, 0.0)).resumed


async def test_on_another_gateway_the_last_commit_counts(make_rig: MakeRig) -> None:
    """Two gateways share a store and the time of day, and no more."""
    now = ManualClock()
    rig = await make_rig(RigOptions(unix_clock=now))
    elsewhere = Epochs(rig.sessions, "fake", now)
    opened = await rig.policy.open_session("arm", None, None)
    now.now += 8
    await rig.policy.plan(request(opened))
    now.now += 9.9
    again = await elsewhere.open("arm", opened.session_id, None)
    assert (again.resumed, again.epoch, again.next_sequence) == (True, 2, 1)
    now.now += 10.1
    assert not (await elsewhere.open("arm", opened.session_id, None)).resumed


async def test_a_robot_that_comes_back_from_another_gateway_goes_on(make_rig: MakeRig) -> None:
    """Its stream here ended long ago, and it had another one elsewhere until now."""
    now = ManualClock()
    rig = await make_rig(RigOptions(unix_clock=now))
    elsewhere = Epochs(rig.sessions, "fake", now)
    opened = await rig.policy.open_session("arm", None, None)
    await elsewhere.open("arm", opened.session_id, None)
    now.now += 30
    await rig.policy.plan(request(replace(opened, epoch=2)))
    back = await rig.policy.open_session("arm", opened.session_id, 30.0)
    assert (back.resumed, back.epoch, back.next_sequence) == (True, 3, 1)


async def test_a_plan_of_an_older_epoch_is_not_committed(make_rig: MakeRig) -> None:
    go_on = asyncio.Event()

    async def hold(_verb: str) -> None:
        await go_on.wait()

    rig = await make_rig(RigOptions(before=hold))
    opened = await rig.policy.open_session("arm", None, None)
    plan = asyncio.ensure_future(rig.policy.plan(request(opened)))
    await yield_to_loop(20)
    again = await rig.policy.open_session("arm", opened.session_id, 0.0)
    go_on.set()
    with pytest.raises(StaleEpoch) as caught:
        await plan
    assert (caught.value.field, caught.value.actual) == ("epoch", "1")
    session = await rig.sessions.load(opened.session_id)
    assert session is not None
    assert (session.epoch, session.last_sequence, session.memory) == (2, -1, None)
    assert (await rig.policy.plan(request(again))).epoch == 2


async def test_a_request_of_an_older_epoch_is_refused_before_it_is_planned(rig: Rig) -> None:
    opened = await rig.policy.open_session("arm", None, None)
    await rig.policy.open_session("arm", opened.session_id, 0.0)
    with pytest.raises(StaleEpoch):
        await rig.policy.plan(request(opened))
    assert rig.backend.calls == []


async def test_a_retry_on_a_stream_has_the_epoch_of_the_stream(rig: Rig) -> None:
    """A robot refuses the chunk of another epoch."""
    opened = await rig.policy.open_session("arm", None, None)
    first = await rig.policy.plan(request(opened))
    resumed = await rig.policy.open_session("arm", opened.session_id, 0.0)
    again = await rig.policy.plan(request(resumed, sequence=0))
    assert (first.epoch, again.epoch) == (1, 2)
    assert again.chunk_id == first.chunk_id


@pytest.mark.parametrize("sequence", [0, 1])
async def test_a_plan_without_a_stream_is_refused_in_the_session_of_a_stream(rig: Rig, sequence: int) -> None:
    """It would be committed between two plans of the stream. A retry of the stream's last plan is refused as well."""
    opened = await rig.policy.open_session("arm", None, None)
    await rig.policy.plan(request(opened))
    with pytest.raises(InvalidRequest, match="session_id: expected a session that no robot's stream has opened"):
        await rig.policy.plan(request(opened, epoch=None, sequence=sequence))
    assert (await rig.policy.plan(request(opened, 2, sequence=1))).epoch == 1


async def test_a_request_of_a_newer_epoch_joins_no_plan(make_rig: MakeRig) -> None:
    go_on, began = asyncio.Event(), asyncio.Event()

    async def hold(_verb: str) -> None:
        began.set()
        await go_on.wait()

    rig = await make_rig(RigOptions(before=hold))
    opened = await rig.policy.open_session("arm", None, None)
    running = asyncio.create_task(rig.policy.plan(request(opened)))
    await began.wait()
    reset = await rig.policy.reset_epoch(opened.session_id, opened.epoch)
    with pytest.raises(SequenceConflict, match="one plan at a time"):
        await asyncio.wait_for(rig.policy.plan(request(reset)), 15)
    go_on.set()
    with pytest.raises(StaleEpoch):
        await running


async def test_a_reset_begins_an_epoch_without_memory(rig: Rig) -> None:
    opened = await rig.policy.open_session("arm", None, None)
    await rig.policy.plan(request(opened))
    reset = await rig.policy.reset_epoch(opened.session_id, 1)
    assert reset == OpenedSession(opened.session_id, 2, 1, False)
    later = await rig.policy.plan(request(reset, 2))
    fresh = await rig.policy.plan(request(await rig.policy.open_session("other", None, None), 2, sequence=1))
    np.testing.assert_array_equal(later.actions, fresh.actions)
    with pytest.raises(StaleEpoch):
        await rig.policy.reset_epoch(opened.session_id, 1)
    with pytest.raises(UnknownSession):
        await rig.policy.reset_epoch("unknown", 1)


async def test_a_reset_from_outside_ends_the_epoch(rig: Rig) -> None:
    opened = await rig.policy.open_session("arm", None, None)
    await rig.policy.reset(opened.session_id)
    with pytest.raises(StaleEpoch):
        await rig.policy.plan(request(opened))


async def test_a_session_without_streams_has_no_epochs(rig: Rig) -> None:
    chunk = await rig.policy.plan(example_request(SPEC, 1))
    await rig.policy.reset(chunk.session_id)
    session = await rig.sessions.load(chunk.session_id)
    assert session is not None
    assert (chunk.epoch, session.epoch) == (0, 0)


async def test_no_session_is_opened_while_the_service_is_not_ready(make_rig: MakeRig) -> None:
    rig = await make_rig(RigOptions(ready=False))
    with pytest.raises(NotReady):
        await rig.policy.open_session("arm", None, None)
    with pytest.raises(NotReady):
        await rig.policy.reset_epoch("s", 1)


class DisturbedStore:
    """A store in which other commits come first, `times` times; with `silent` it says nothing."""

    def __init__(self, sessions: MemorySessions, times: int, silent: bool = False) -> None:
        self._sessions = sessions
        self._left = times
        self._silent = silent

    async def load(self, session_id: str) -> Session | None:
        return await self._sessions.load(session_id)

    async def peek(self, session_id: str) -> Session | None:
        return await self._sessions.peek(session_id)

    async def ensure_room(self, robot_id: str = "") -> None:
        await self._sessions.ensure_room(robot_id)

    async def ensure_writable(self) -> None:
        pass

    async def end(self, session_id: str) -> None:
        await self._sessions.end(session_id)

    async def commit(self, session: Session, deadline: float = math.inf) -> CommitResult:
        if self._silent:
            return CommitResult.UNKNOWN
        if session.version and self._left:
            self._left -= 1
            stored = await self._sessions.load(session.id)
            assert stored is not None
            await self._sessions.commit(replace(stored, last_sequence=stored.last_sequence + 1))
        return await self._sessions.commit(session, deadline)


async def test_an_epoch_begins_although_a_plan_is_committed_meanwhile() -> None:
    sessions = MemorySessions(60.0, 4)
    opened = await Epochs(sessions, "p").open("arm", None, None)
    again = await Epochs(DisturbedStore(sessions, 2), "p").open("arm", opened.session_id, 0.0)
    assert again == OpenedSession(opened.session_id, 2, 2, True)
    reset = await Epochs(DisturbedStore(sessions, 2), "p").reset(opened.session_id, 2)
    assert (reset.epoch, reset.next_sequence) == (3, 4)


async def test_an_epoch_that_does_not_begin_is_an_error() -> None:
    sessions = MemorySessions(60.0, 4)
    opened = await Epochs(sessions, "p").open("arm", None, None)
    busy: SessionStore = DisturbedStore(sessions, 99)
    with pytest.raises(SequenceConflict):
        await Epochs(busy, "p").open("arm", opened.session_id, 0.0)
    with pytest.raises(SequenceConflict):
        await Epochs(busy, "p").reset(opened.session_id, 1)
    with pytest.raises(OutcomeUnknown):
        await Epochs(DisturbedStore(sessions, 0, silent=True), "p").open("arm", None, None)
