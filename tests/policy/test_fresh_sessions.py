"""Plans while the shared store is down: without frame memory, and never over what another gateway stored."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from tests.planning.rig import MakeRig, RigOptions
from tests.policy.requests import first, follow
from wavserve.core.errors import StoreUnavailable, UnknownSession
from wavserve.policy.fresh_sessions import FreshWhenDown
from wavserve.policy.sessions import CommitResult, MemorySessions, Session


class Shared:
    """A store of another process. Sets `down` to stop answering."""

    def __init__(self) -> None:
        self.sessions = MemorySessions(600.0, 16)
        self.down = False

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
        return CommitResult.UNKNOWN if self.down else await self.sessions.commit(session, deadline)

    async def ensure_room(self, robot_id: str = "") -> None:
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
