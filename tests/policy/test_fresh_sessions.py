"""Plans while the shared store is down: without frame memory, and never over what another gateway stored."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from tests.planning.rig import MakeRig, RigOptions, example_request
from tests.policy.requests import SPEC, first, follow
from wavserve.core.errors import Overloaded, StaleEpoch, StoreUnavailable, UnknownSession
from wavserve.core.types import PlanRequest
from wavserve.policy.epochs import OpenedSession
from wavserve.policy.fresh_sessions import FreshWhenDown
from wavserve.policy.sessions import CommitResult, MemorySessions, Session


class Shared:
    """A store of another process. Sets `down` to stop answering, `deaf` to stop answering commits that it stores."""

    def __init__(self) -> None:
        self.sessions = MemorySessions(600.0, 16)
        self.down = False
        self.deaf = False
        self.full = False

    def _check(self) -> None:
        if self.down:
            raise StoreUnavailable("down")

    async def load(self, session_id: str) -> Session | None:
        self._check()
        return await self.sessions.load(session_id)

    async def peek(self, session_id: str) -> Session | None:
        self._check()
        return await self.sessions.peek(session_id)

    async def commit(self, session: Session, deadline: float = math.inf) -> CommitResult:
        result = CommitResult.UNKNOWN if self.down else await self.sessions.commit(session, deadline)
        return CommitResult.UNKNOWN if self.deaf else result

    async def ensure_room(self, robot_id: str = "") -> None:
        self._check()

    async def ensure_writable(self) -> None:
        if self.full:
            raise Overloaded("full")
        self._check()

    async def end(self, session_id: str) -> None:
        await self.sessions.end(session_id)


@pytest.fixture
def shared() -> Shared:
    return Shared()


@pytest.fixture
def store(shared: Shared) -> FreshWhenDown:
    return FreshWhenDown(shared, MemorySessions(600.0, 16))


async def test_a_robot_goes_on_without_memory_and_keeps_what_it_sees(
    make_rig: MakeRig, store: FreshWhenDown, shared: Shared
) -> None:
    rig = await make_rig(RigOptions(store=lambda _: store))
    opened = await rig.policy.plan(first())
    shared.down = True
    blind = await rig.policy.plan(follow(opened, 2, sequence=1, executed_steps=2))
    assert blind.fresh_memory
    later = await rig.policy.plan(follow(opened, 3, sequence=2, executed_steps=2))
    assert not later.fresh_memory
    shared.down = False
    back = await rig.policy.plan(follow(opened, 4, sequence=3, executed_steps=2))
    assert not back.fresh_memory
    stored = await shared.sessions.load(opened.session_id)
    assert stored is not None
    assert (stored.version, stored.last_sequence) == (2, 3)


async def test_a_session_that_opens_while_the_store_is_down_moves_there_later(
    make_rig: MakeRig, store: FreshWhenDown, shared: Shared
) -> None:
    rig = await make_rig(RigOptions(store=lambda _: store))
    shared.down = True
    opened = await rig.policy.plan(first())
    shared.down = False
    later = await rig.policy.plan(follow(opened, 2, sequence=1, executed_steps=2))
    assert not later.fresh_memory
    assert await shared.sessions.load(opened.session_id) is not None


async def test_what_another_gateway_stored_later_wins(store: FreshWhenDown, shared: Shared) -> None:
    session = replace(Session.fresh("fake"), committed_s=1.0)
    await store.commit(session)
    shared.down = True
    apart = await store.load(session.id)
    assert apart is not None
    await store.commit(replace(apart, last_sequence=5, committed_s=2.0))
    shared.down = False
    elsewhere = await shared.sessions.load(session.id)
    assert elsewhere is not None
    await shared.sessions.commit(replace(elsewhere, last_sequence=9, committed_s=3.0))
    found = await store.load(session.id)
    assert found is not None
    assert (found.last_sequence, found.version) == (9, 2)


async def test_a_plan_that_began_while_the_store_was_down_does_not_commit_to_it(
    store: FreshWhenDown, shared: Shared
) -> None:
    session = Session.fresh("fake")
    await store.commit(session)
    shared.down = True
    apart = await store.load(session.id)
    assert apart is not None
    shared.down = False
    assert await store.commit(replace(apart, last_sequence=3)) is CommitResult.COMMITTED
    stored = await shared.sessions.load(session.id)
    assert stored is not None
    assert stored.last_sequence == -1


async def test_without_this_choice_the_robot_gets_a_retryable_error(make_rig: MakeRig, shared: Shared) -> None:
    rig = await make_rig(RigOptions(store=lambda _: shared))
    opened = await rig.policy.plan(first())
    shared.down = True
    with pytest.raises(StoreUnavailable) as caught:
        await rig.policy.plan(follow(opened, 2, sequence=1, executed_steps=2))
    assert caught.value.retryable
    shared.down = False
    assert not (await rig.policy.plan(follow(opened, 2, sequence=1, executed_steps=2))).fresh_memory
    with pytest.raises(UnknownSession):
        await rig.policy.plan(replace(follow(opened, 2, sequence=1), session_id="unknown"))


async def test_an_onlooker_sees_the_last_commit_of_either_and_changes_nothing(
    store: FreshWhenDown, shared: Shared
) -> None:
    session = replace(Session.fresh("fake"), committed_s=1.0)
    await store.commit(session)
    assert await store.peek(session.id) is not None
    shared.down = True
    assert await store.peek(session.id) is None, "nobody knows it here"
    blind = await store.load(session.id)
    assert blind is not None
    await store.commit(replace(blind, last_sequence=7, committed_s=2.0))
    for down in (True, False):
        shared.down = down
        seen = await store.peek(session.id)
        assert seen is not None
        assert seen.last_sequence == 7
    stored = await shared.sessions.load(session.id)
    assert stored is not None
    await shared.sessions.commit(replace(stored, last_sequence=8, committed_s=3.0))
    seen = await store.peek(session.id)
    assert seen is not None
    assert seen.last_sequence == 8


def of_stream(opened: OpenedSession, sequence: int, seed: int = 1) -> PlanRequest:
    """An observation of a robot's stream."""
    return example_request(
        SPEC, seed, session_id=opened.session_id, epoch=opened.epoch, sequence=sequence, executed_steps=2
    )


async def test_a_stream_goes_on_in_its_epoch(make_rig: MakeRig, store: FreshWhenDown, shared: Shared) -> None:
    rig = await make_rig(RigOptions(store=lambda _: store))
    opened = await rig.policy.open_session("arm", None, None)
    await rig.policy.plan(of_stream(opened, 0))
    shared.down = True
    fresh = [(await rig.policy.plan(of_stream(opened, sequence))).fresh_memory for sequence in (1, 2)]
    assert fresh == [True, False]
    shared.down = False
    assert not (await rig.policy.plan(of_stream(opened, 3))).fresh_memory
    stored = await shared.sessions.load(opened.session_id)
    assert stored is not None
    assert (stored.epoch, stored.last_sequence, stored.robot_id) == (1, 3, "arm")


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("streams", [False, True])
async def test_a_plan_that_was_made_when_the_store_went_is_answered(
    make_rig: MakeRig, store: FreshWhenDown, shared: Shared, stored: bool, streams: bool
) -> None:
    """The store said nothing of the commit. It goes on from this plan, whether it was stored or not."""
    going = False

    async def go(_verb: str) -> None:
        if going:
            shared.down, shared.deaf = not stored, stored

    rig = await make_rig(RigOptions(store=lambda _: store, before=go))
    if streams:
        opened = await rig.policy.open_session("arm", None, None)
    else:
        opened = OpenedSession((await rig.policy.plan(first())).session_id, None, 1, False)  # type: ignore[arg-type]
    await rig.policy.plan(of_stream(opened, 1))
    going = True
    answered = await rig.policy.plan(of_stream(opened, 2))
    assert not answered.fresh_memory, "it was made from the memory that the store had"
    shared.down = True
    assert not (await rig.policy.plan(of_stream(opened, 3))).fresh_memory
    assert not (await rig.policy.plan(of_stream(opened, 4))).fresh_memory
    going = shared.down = shared.deaf = False
    assert not (await rig.policy.plan(of_stream(opened, 5))).fresh_memory
    found = await shared.sessions.load(opened.session_id)
    assert found is not None
    assert found.last_sequence == 5


async def test_a_commit_of_which_the_store_says_nothing_until_it_is_too_late_is_unknown(
    store: FreshWhenDown, shared: Shared
) -> None:
    session = Session.fresh("fake")
    await store.commit(session)
    shared.down = True
    assert await store.commit(replace(session, version=1), -math.inf) is CommitResult.UNKNOWN


async def test_a_reset_of_a_stream_begins_an_epoch_that_lasts(
    make_rig: MakeRig, store: FreshWhenDown, shared: Shared
) -> None:
    rig = await make_rig(RigOptions(store=lambda _: store))
    opened = await rig.policy.open_session("arm", None, None)
    await rig.policy.plan(of_stream(opened, 0))
    shared.down = True
    again = await rig.policy.reset_epoch(opened.session_id, 1)
    assert (again.epoch, again.next_sequence) == (2, 1)
    assert (await rig.policy.plan(of_stream(again, 1))).fresh_memory
    with pytest.raises(StaleEpoch):
        await rig.policy.plan(of_stream(opened, 2))
    shared.down = False
    assert not (await rig.policy.plan(of_stream(again, 2))).fresh_memory


async def test_a_robot_that_connects_again_goes_on_in_a_new_epoch(
    make_rig: MakeRig, store: FreshWhenDown, shared: Shared
) -> None:
    rig = await make_rig(RigOptions(store=lambda _: store))
    opened = await rig.policy.open_session("arm", None, None)
    await rig.policy.plan(of_stream(opened, 0))
    shared.down = True
    again = await rig.policy.open_session("arm", opened.session_id, 0.0)
    assert (again.session_id, again.epoch, again.next_sequence) == (opened.session_id, 2, 1)
    assert (await rig.policy.plan(of_stream(again, 1))).fresh_memory
    shared.down = False
    assert not (await rig.policy.plan(of_stream(again, 2))).fresh_memory


async def test_a_stream_that_was_cut_off_does_not_commit_over_its_successor(
    make_rig: MakeRig, store: FreshWhenDown, shared: Shared
) -> None:
    """The successor is at another gateway, which reaches the store."""
    rig = await make_rig(RigOptions(store=lambda _: store))
    elsewhere = await make_rig(RigOptions(store=lambda _: shared.sessions))
    opened = await rig.policy.open_session("arm", None, None)
    await rig.policy.plan(of_stream(opened, 0))
    successor = await elsewhere.policy.open_session("arm", opened.session_id, None)
    shared.down = True
    await rig.policy.plan(of_stream(opened, 1))
    shared.down = False
    with pytest.raises(StaleEpoch):
        await rig.policy.plan(of_stream(opened, 2))
    assert (await elsewhere.policy.plan(of_stream(successor, 1))).epoch == 2


async def test_a_session_that_ended_is_no_stream_any_more(
    make_rig: MakeRig, store: FreshWhenDown, shared: Shared
) -> None:
    rig = await make_rig(RigOptions(store=lambda _: store))
    opened = await rig.policy.open_session("arm", None, None)
    await rig.policy.end_session(opened.session_id)
    shared.down = True
    with pytest.raises(StaleEpoch):
        await rig.policy.plan(of_stream(opened, 0))


async def test_so_many_streams_are_remembered_and_no_more(shared: Shared) -> None:
    store = FreshWhenDown(shared, MemorySessions(600.0, 16), max_streams=2)
    opened = [replace(Session.fresh("fake"), epoch=1) for _ in range(3)]
    for session in opened:
        assert await store.commit(session) is CommitResult.COMMITTED
    shared.down = True
    found = [await store.load(session.id) for session in opened]
    assert [session is not None and session.epoch for session in found] == [0, 1, 1]


async def test_a_full_store_refuses_and_one_that_is_away_does_not(store: FreshWhenDown, shared: Shared) -> None:
    shared.full = True
    with pytest.raises(Overloaded):
        await store.ensure_writable()
    shared.full, shared.down = False, True
    await store.ensure_writable()
