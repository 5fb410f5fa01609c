"""One living stream a robot id; who comes back in time goes on where the robot was, in a new epoch."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import grpc
import numpy as np
import pytest

from tests.clock import ManualClock
from tests.edge.grpc.control.links import Gate, Link, Server, serving_policy, serving_rig
from tests.edge.robots import facts_of
from tests.planning.rig import RigOptions
from wavserve.core.control import Bye, ResetStream, StreamError
from wavserve.core.messages import ActionChunk
from wavserve.wire.requests import plan_request


async def planned(link: Link, sequence: int, **changes: object) -> ActionChunk:
    await link.send(link.observation(sequence, **changes))
    return await link.receive(ActionChunk)


async def leave(server: Server, link: Link) -> str:
    """The robot's link is cut. Returns its session."""
    assert link.welcome is not None
    await link.hang_up()
    await server.until(lambda: len(server.robots) == 0)
    return link.welcome.session_id


async def test_a_robot_that_comes_back_in_time_goes_on_in_a_new_epoch(server: Server) -> None:
    link = server.link()
    await link.open()
    await planned(link, 4)
    session_id = await leave(server, link)
    server.clock.now += 10.0
    again = server.link()
    welcome = await again.open(resume_session_id=session_id)
    assert (welcome.session_id, welcome.epoch, welcome.resumed) == (session_id, 2, True)
    assert welcome.next_sequence == 5
    chunk = await planned(again, 5, seed=2, executed_steps=2)
    assert (chunk.epoch, chunk.fresh_memory) == (2, False)


async def test_a_plan_without_a_stream_cannot_use_the_session_of_a_stream(server: Server) -> None:
    link = server.link()
    welcome = await link.open()
    await planned(link, 0)
    seen = replace(link.observation(1), session_id=welcome.session_id, instruction="pick", epoch=None)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.stub.Plan(plan_request(seen))
    facts = facts_of(caught.value)
    assert (facts["type"], facts["field"]) == ("invalid-request", "session_id")
    assert not (await planned(link, 1)).fresh_memory


async def test_a_robot_that_comes_back_late_begins_afresh() -> None:
    now = ManualClock()
    async with serving_rig(RigOptions(unix_clock=now)) as (server, _):
        link = server.link()
        await link.open()
        await planned(link, 4)
        session_id = await leave(server, link)
        server.clock.now += 10.1
        now.now += 10.1
        again = server.link()
        welcome = await again.open(resume_session_id=session_id)
        assert (welcome.epoch, welcome.resumed, welcome.next_sequence) == (1, False, 0)
        assert welcome.session_id != session_id
        assert (await planned(again, 0)).fresh_memory


async def test_another_gateway_resumes_by_the_last_commit() -> None:
    """Two servers over one policy and store: the second one has never seen the robot."""
    now = ManualClock()
    async with serving_rig(RigOptions(unix_clock=now)) as (here, rig), serving_policy(rig.policy, Gate()) as there:
        link = here.link()
        await link.open()
        await planned(link, 0)
        now.now += 9.0
        again = there.link()
        welcome = await again.open(resume_session_id=link.welcome.session_id)  # type: ignore[union-attr]
        assert (welcome.resumed, welcome.epoch, welcome.next_sequence) == (True, 2, 1)
        await link.send(link.observation(1))  # the first stream does not know yet
        error = await link.receive(StreamError)
        assert (error.name, error.fatal, error.epoch) == ("stale-epoch", True, 1)
        assert (await link.end())[0] == "ABORTED"
        assert (await planned(again, 1)).epoch == 2


async def test_a_plan_of_an_older_epoch_ends_its_stream() -> None:
    """The partition: the first gateway still plans while the robot has gone on with the second one."""
    async with serving_rig() as (here, rig), serving_policy(rig.policy, Gate()) as there:
        link = here.link()
        await link.open()
        here.gate.close()
        await link.send(link.observation(0))
        await asyncio.wait_for(here.gate.began.wait(), 15)
        again = there.link()
        welcome = await again.open(resume_session_id=link.welcome.session_id)  # type: ignore[union-attr]
        assert (welcome.resumed, welcome.epoch) == (True, 2)
        here.gate.open()
        error = await link.receive(StreamError)
        assert (error.name, error.field, error.fatal) == ("stale-epoch", "epoch", True)
        assert (await link.end())[0] == "ABORTED"
        assert (await planned(again, 0)).fresh_memory  # nothing of the older epoch was committed


async def test_a_second_stream_of_a_living_robot_is_refused(server: Server) -> None:
    link = server.link()
    await link.open()
    for resume in (None, "another session"):
        newcomer = server.link(resume_session_id=resume)
        await newcomer.send(newcomer.hello)
        error = await newcomer.receive(StreamError)
        assert (error.name, error.fatal, error.retryable) == ("robot-busy", True, True)
        assert (await newcomer.end())[0] == "ALREADY_EXISTS"
    await planned(link, 0)
    await server.link("another robot").open()
    await link.send(Bye())
    await link.end()
    assert not (await server.link().open()).resumed


async def test_a_stream_that_resumes_the_session_ends_the_older_one(server: Server) -> None:
    link = server.link()
    await link.open()
    await planned(link, 0)
    server.gate.close()
    await link.send(link.observation(1))
    await asyncio.wait_for(server.gate.began.wait(), 15)
    again = server.link(resume_session_id=link.welcome.session_id)  # type: ignore[union-attr]
    welcome = await again.open()
    assert (welcome.resumed, welcome.epoch, welcome.next_sequence) == (True, 2, 1)
    error = await link.receive(StreamError)
    assert (error.name, error.fatal) == ("stale-epoch", True)
    assert (await link.end())[0] == "ABORTED"
    server.gate.open()
    assert (await planned(again, 1)).epoch == 2
    assert len(server.robots) == 1


async def test_a_session_of_another_robot_is_not_resumed(server: Server) -> None:
    link = server.link()
    await link.open()
    await planned(link, 0)
    session_id = await leave(server, link)
    thief = server.link("thief")
    welcome = await thief.open(resume_session_id=session_id)
    assert (welcome.resumed, welcome.epoch) == (False, 1)
    assert welcome.session_id != session_id


async def test_a_reset_from_outside_ends_the_stream(server: Server) -> None:
    link = server.link()
    welcome = await link.open()
    first = await planned(link, 0)
    await server.policy.reset(welcome.session_id)
    await link.send(link.observation(1))
    assert (await link.receive(StreamError)).name == "stale-epoch"
    again = server.link()
    resumed = await again.open(resume_session_id=welcome.session_id)
    assert (resumed.resumed, resumed.epoch) == (True, 3)
    fresh = await planned(again, 1)
    np.testing.assert_array_equal(fresh.actions.shape, first.actions.shape)
    assert fresh.fresh_memory


async def test_a_session_that_expired_ends_the_stream() -> None:
    clock = ManualClock()
    async with serving_rig(RigOptions(clock=clock)) as (server, _):
        link = server.link()
        await link.open()
        clock.now += 61  # the store forgets a session that is not used for 60 s
        await link.send(link.observation(0))
        error = await link.receive(StreamError)
        assert (error.name, error.fatal) == ("unknown-session", True)
        assert (await link.end())[0] == "NOT_FOUND"
        other = server.link()
        await other.open()
        clock.now += 61
        await other.send(ResetStream(1))
        assert (await other.receive(StreamError)).name == "unknown-session"


@pytest.mark.parametrize("silent_s", [0.0, 10.0])
async def test_a_robot_may_come_back_again_and_again(server: Server, silent_s: float) -> None:
    session_id = None
    for epoch in range(1, 5):
        link = server.link()
        welcome = await link.open(resume_session_id=session_id)
        assert welcome.epoch == epoch
        session_id = await leave(server, link)
        server.clock.now += silent_s
