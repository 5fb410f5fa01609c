"""The robots with a living stream, without a network: their number, and what is remembered of streams that ended."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from tests.clock import ManualClock
from tests.wire.test_control import HELLO
from wavserve.core.errors import Overloaded, RobotBusy
from wavserve.edge.grpc.control.robots import Robots

FIRST = replace(HELLO, resume_session_id=None)


async def test_so_many_robots_may_be_connected() -> None:
    robots = Robots(max_robots=2)
    async with AsyncExitStack() as streams:
        for number in range(2):
            await streams.enter_async_context(robots.enter(replace(FIRST, robot_id=f"arm-{number}"), "peer"))
        with pytest.raises(Overloaded):
            await streams.enter_async_context(robots.enter(replace(FIRST, robot_id="arm-2"), "peer"))
        with pytest.raises(RobotBusy):
            await streams.enter_async_context(robots.enter(replace(FIRST, robot_id="arm-1"), "peer"))
    assert len(robots) == 0
    async with robots.enter(FIRST, "peer"):
        assert [each.robot_id for each in robots.statuses()] == ["arm-1"]


async def test_the_end_of_a_stream_is_remembered_while_it_can_be_resumed() -> None:
    clock = ManualClock()
    robots = Robots(clock)
    for session_id in ("s1", "s2"):
        async with robots.enter(FIRST, "peer") as robot:
            robot.session_id = session_id
            clock.now += 6
            assert robots.silent_s(session_id) is None
        assert robots.silent_s(session_id) == 0
    assert (robots.silent_s("s1"), robots.silent_s("s2"), robots.silent_s(None)) == (6, 0, None)
    clock.now += 5
    async with robots.enter(FIRST, "peer"):
        pass
    assert (robots.silent_s("s1"), robots.silent_s("s2")) == (None, 5)


async def test_a_stream_that_never_opened_a_session_cannot_be_taken_over() -> None:
    robots = Robots()
    async with robots.enter(FIRST, "peer"):
        with pytest.raises(RobotBusy):
            async with robots.enter(HELLO, "peer"):
                pytest.fail("it was taken over")
