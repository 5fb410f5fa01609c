"""A robot that does not read: nothing piles up for it, and it is cut off."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import grpc
import numpy as np
import pytest

from tests.edge.fakes import RecordingPolicy, example_chunk_of, example_limits
from tests.edge.grpc.control.links import Gate, Link, Server, example_message, serving_policy
from tests.edge.robots import facts_of
from wavserve.core.control import Ping, Pong
from wavserve.core.errors import Overloaded
from wavserve.core.messages import ActionChunk
from wavserve.core.types import PlanRequest
from wavserve.edge.grpc.control.outbox import MAX_MESSAGES, Outbox
from wavserve.pb import wavserve_pb2 as pb
from wavserve.planning.timings import Progress
from wavserve.scheduling.permits import Permit

PONG = Pong(1, 2, 3, 4)


def example_chunk() -> ActionChunk:
    policy = RecordingPolicy()
    return example_chunk_of(policy.spec, PlanRequest(instruction="x", images={}, state=np.zeros(8, np.float32)))


class Wire:
    """Takes messages only while it is open."""

    def __init__(self) -> None:
        self.written: list[pb.ServerMessage] = []
        self.open = asyncio.Event()

    async def write(self, raw: bytes) -> None:
        await self.open.wait()
        self.written.append(pb.ServerMessage.FromString(raw))


async def test_two_unread_chunks_and_a_write_that_stalls_end_the_stream() -> None:
    wire = Wire()
    outbox = Outbox(wire.write, stall_s=0.01)
    writing = asyncio.create_task(outbox.write_all())
    outbox.put(example_chunk())
    outbox.put(PONG)
    await asyncio.sleep(0.05)
    assert not writing.done()  # one unread chunk is no fault: the link may be slow
    outbox.put(example_chunk())
    with pytest.raises(Overloaded, match="2 chunks were unread for"):
        await asyncio.wait_for(writing, 15)
    assert wire.written == []


async def test_a_reader_that_catches_up_gets_every_message_in_order() -> None:
    wire = Wire()
    outbox = Outbox(wire.write, stall_s=60.0)
    writing = asyncio.create_task(outbox.write_all())
    for message in (example_chunk(), PONG, example_chunk()):
        outbox.put(message)
    room = asyncio.create_task(outbox.has_room())
    await asyncio.sleep(0.01)
    assert not room.done()
    wire.open.set()
    await asyncio.wait_for(room, 15)
    outbox.close()
    await asyncio.wait_for(writing, 15)
    assert [each.WhichOneof("message") for each in wire.written] == ["chunk", "pong", "chunk"]


async def test_messages_are_written_without_a_task_for_each() -> None:
    tasks = []

    async def write(raw: bytes) -> None:
        tasks.append(asyncio.current_task())

    outbox = Outbox(write)
    for message in (PONG, example_chunk(), PONG):
        outbox.put(message)
    outbox.close()
    await outbox.write_all()
    assert tasks == [asyncio.current_task()] * 3


async def test_a_writer_that_is_cancelled_ends_its_write() -> None:
    wire = Wire()
    outbox = Outbox(wire.write)
    outbox.put(PONG)
    writing = asyncio.create_task(outbox.write_all())
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    wire.open.set()
    await asyncio.sleep(0)
    assert wire.written == []


async def test_small_messages_do_not_pile_up_either() -> None:
    outbox = Outbox(Wire().write)
    for _ in range(MAX_MESSAGES):
        outbox.put(PONG)
    with pytest.raises(Overloaded, match="256 messages wait"):
        outbox.put(PONG)


class LongPlans(RecordingPolicy):
    """Its chunks are as long as a message may be, so that the buffers between server and robot take few."""

    async def plan(
        self, request: PlanRequest, deadline: float | None, permit: Permit | None, progress: Progress | None = None
    ) -> ActionChunk:
        chunk = await super().plan(request, deadline, permit)
        return replace(chunk, actions=np.ones((140_000, 7), np.float32))


async def test_a_robot_that_does_not_read_is_cut_off() -> None:
    policy = LongPlans()
    async with serving_policy(policy, Gate(), example_limits()) as server:
        link = server.link()
        await link.open()
        for sequence in range(12):
            await link.send(example_message(sequence))
            await asyncio.sleep(0.02)
        await server.until(lambda: len(server.robots) == 0)
        await server.until(lambda: server.counted("control_streams_ended_total", outcome="overloaded") == 1)
        assert len(policy.requests) < 12
        assert (await server.link().open()).session_id  # its id is free
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read_chunks(link)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert facts_of(caught.value)["type"] == "overloaded"


async def read_chunks(link: Link) -> None:
    """Reads what waits, until the stream ends with an error."""
    while True:
        await link.receive(ActionChunk)


async def test_a_robot_that_reads_may_send_as_fast_as_it_can(server: Server) -> None:
    """Pings that a stalled network delivers at once are all answered."""
    link = server.link()
    await link.open()
    for number in range(1_000):
        await link.send(Ping(number))
    assert [(await link.receive(Pong)).id for _ in range(1_000)] == list(range(1_000))


async def test_messages_that_are_not_read_stop_the_reading() -> None:
    wire = Wire()
    outbox = Outbox(wire.write, stall_s=0.05)
    writing = asyncio.create_task(outbox.write_all())
    for _ in range(MAX_MESSAGES // 2 + 1):  # one of them is being written
        outbox.put(PONG)
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match=f"{MAX_MESSAGES // 2} messages were unread for 0.05 s"):
        await outbox.has_space()
    wire.open.set()
    await asyncio.wait_for(outbox.has_space(), 15)
    outbox.close()
    await asyncio.wait_for(writing, 15)
