"""What onlookers see of the robots: no session id and no picture."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from tests.edge.grpc.control.links import ANSWER_S, Server
from tests.edge.robots import facts_of
from wavserve.core.control import DropReason, ExecutionReport, HoldReason, ObservationDropped, Ping, Pong, StreamError
from wavserve.core.messages import ActionChunk
from wavserve.edge.grpc.control.service import MAX_WATCHERS
from wavserve.pb import wavserve_pb2 as pb
from wavserve.wire.control_answers import watch_update_from


async def update_of(call: Any) -> pb.WatchUpdate:
    async with asyncio.timeout(ANSWER_S):
        update: pb.WatchUpdate = await call.read()
    return update


async def test_onlookers_see_the_robots_that_are_connected(server: Server) -> None:
    watching: Any = server.stub.Watch(pb.WatchRequest(interval_s=0.1))
    assert list((await update_of(watching)).robots) == []
    link, idle = server.link("b"), server.link("a")
    welcome = await link.open()
    await idle.open()
    report = ExecutionReport(chunk_id="c1", hold_reason=HoldReason.OPERATOR)
    await link.send(link.observation(0, instruction="place", imagine_chunks=1))
    chunk = await link.receive(ActionChunk)
    await link.send(link.observation(0), report, Ping(1))
    await link.receive(StreamError)
    await link.receive(Pong)
    server.clock.now += 2.5
    while len((update := await update_of(watching)).robots) < 2 or update.robots[1].connected_s == 0:
        pass  # of before
    first, second = watch_update_from(update)
    assert (first.robot_id, first.chunks, first.last_chunk, first.plan_ms_p50) == ("a", 0, None, 0.0)
    assert (second.robot_id, second.client, second.peer, second.epoch) == ("b", "tests 1", "127.0.0.1", 1)
    assert (second.instruction, second.connected_s, second.last_chunk_age_s) == ("place", 2.5, 2.5)
    assert (second.observations, second.chunks, second.dropped, second.errors) == (2, 1, 0, 1)
    assert 0 < second.plan_ms_p50 <= second.plan_ms_p95
    assert second.last_report == report
    assert second.last_chunk is not None
    assert second.last_chunk.chunk_id == chunk.chunk_id
    assert (second.last_chunk.imagined, second.last_chunk.receipt.iterations) == ({}, ())
    assert chunk.imagined
    assert welcome.session_id.encode() not in update.SerializeToString()
    watching.cancel()


async def test_onlookers_see_what_is_dropped(server: Server) -> None:
    link = server.link()
    await link.open()
    server.gate.close()
    await link.send(link.observation(0))
    await server.gate.began.wait()
    await link.send(link.observation(1), link.observation(2))
    assert (await link.receive(ObservationDropped)).reason is DropReason.SUPERSEDED
    watching: Any = server.stub.Watch(pb.WatchRequest())
    [robot] = watch_update_from(await update_of(watching))
    assert (robot.observations, robot.dropped, robot.chunks) == (3, 1, 0)
    watching.cancel()


async def test_a_watch_ends_with_the_service(server: Server) -> None:
    watching: Any = server.stub.Watch(pb.WatchRequest(interval_s=60))
    await update_of(watching)
    server.robots.drain()
    async with asyncio.timeout(ANSWER_S):
        assert await watching.read() is grpc.aio.EOF
        assert await watching.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("interval_s", [0.01, 61.0, -1.0, float("nan"), float("inf")])
async def test_another_interval_is_refused(server: Server, interval_s: float) -> None:
    watching: Any = server.stub.Watch(pb.WatchRequest(interval_s=interval_s))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await watching.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert facts_of(caught.value)["field"] == "interval_s"


async def test_so_many_may_watch(server: Server) -> None:
    """Robots need the event loop's time. An onlooker that goes makes room."""
    watching: list[Any] = [server.stub.Watch(pb.WatchRequest(interval_s=60)) for _ in range(MAX_WATCHERS)]
    for each in watching:
        await update_of(each)
    with pytest.raises(grpc.aio.AioRpcError, match="onlookers") as caught:
        await server.stub.Watch(pb.WatchRequest()).read()
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    watching.pop().cancel()
    async with asyncio.timeout(ANSWER_S):
        while await _is_refused(server):
            pass
    for each in watching:
        each.cancel()


async def _is_refused(server: Server) -> bool:
    another: Any = server.stub.Watch(pb.WatchRequest())
    try:
        await another.read()
    except grpc.aio.AioRpcError:
        return True
    another.cancel()
    return False
