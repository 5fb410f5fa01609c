"""Compares Control with unary Plan from one process: each robot asks over its stream and over unary Plan in turn.

Both clients are as thin as can be, and the pictures are encoded before, so the difference is the service's. Meanwhile
every stream pings. Knows no service process.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol

import grpc
import grpc.aio

from loadtest.bench.control_frames import INSTRUCTION, OPTIONS, Pictures, pose, robot
from wavserve.clients.async_client import AsyncPlanClient
from wavserve.clients.calls import MAX_MESSAGE_BYTES, method_path
from wavserve.clients.channels import channel_options
from wavserve.clients.images import encode_images
from wavserve.clients.robot_contract import hello
from wavserve.core.control import Bye, ClientMessage, ControlObservation, Hello, Ping, Pong, Welcome
from wavserve.core.messages import ActionChunk, Observation, PolicyInfo
from wavserve.pb import wavserve_pb2 as pb
from wavserve.wire.control import client_message
from wavserve.wire.control_answers import server_message_from

RATE_HZ = 16.0
"""Observations a second, of all robots together and on both links. A robot alone asks as soon as it has its answer."""
PING_INTERVAL_S = 0.1
WARM_UP = 2
"""Answers of each robot on each link that do not count."""
EXECUTED_STEPS = 30
"""Control steps between two observations of a robot."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The times of one observation, in seconds."""

    whole: float
    """from the pictures, encoded, to the chunk"""
    plan: float
    """the receipt's total"""
    to_server: float
    in_server: float
    from_server: float

    @property
    def own(self) -> float:
        """Everything but the plan."""
        return self.whole - self.plan


class PlanLink(Protocol):
    """One robot's way to the service."""

    async def plan(self, number: int, seen: Observation) -> ActionChunk: ...


class UnaryLink:
    """Unary Plan, with a session."""

    def __init__(self, client: AsyncPlanClient) -> None:
        self._client = client
        self._session_id: str | None = None

    async def plan(self, number: int, seen: Observation) -> ActionChunk:
        chunk = await self._client.plan(replace(seen, session_id=self._session_id, sequence=number))
        self._session_id = chunk.session_id
        return chunk


class StreamLink:
    """A stream of Control, with pings. `pings`: seconds of each round trip, as this process saw them."""

    def __init__(self, call: grpc.aio.StreamStreamCall[bytes, bytes]) -> None:
        self.pings: list[float] = []
        self._call = call
        self._epoch = 0
        self._chunks: asyncio.Queue[ActionChunk] = asyncio.Queue()
        self._writing = asyncio.Lock()  # gRPC takes one message at a time

    async def open(self, message: Hello) -> None:
        await self._send(message)
        welcome = await self._receive()
        if not isinstance(welcome, Welcome):
            raise RuntimeError(f"expected a Welcome, got {welcome}")
        self._epoch = welcome.epoch

    async def plan(self, number: int, seen: Observation) -> ActionChunk:
        values = {each.name: getattr(seen, each.name) for each in fields(Observation)}
        await self._send(ControlObservation(**values | {"sequence": number, "epoch": self._epoch}))
        return await self._chunks.get()

    async def read(self) -> None:
        """Sorts the answers. Raises RuntimeError for one that is neither a chunk nor a pong."""
        while True:
            match await self._receive():
                case ActionChunk() as chunk:
                    self._chunks.put_nowait(chunk)
                case Pong() as pong:
                    self.pings.append((time.monotonic_ns() - pong.client_mono_ns) / 1e9)
                case other:
                    raise RuntimeError(f"expected a chunk or a pong, got {other}")

    async def ping(self) -> None:
        number = 0
        while True:
            await asyncio.sleep(PING_INTERVAL_S)
            number += 1
            await self._send(Ping(number, time.monotonic_ns()))

    async def close(self) -> None:
        await self._send(Bye("done"))

    async def _send(self, message: ClientMessage) -> None:
        raw = client_message(message).SerializeToString()
        async with self._writing:
            await self._call.write(raw)

    async def _receive(self) -> Any:
        raw = await self._call.read()
        if not isinstance(raw, bytes):
            raise RuntimeError(f"the stream ended: {await self._call.details()}")
        return server_message_from(pb.ServerMessage.FromString(raw))


@dataclass(slots=True)
class Compared:
    """What robots found on their two links."""

    stream: list[Answer] = field(default_factory=list)
    unary: list[Answer] = field(default_factory=list)
    pings: list[float] = field(default_factory=list)
    """seconds of each round trip on the streams"""


async def compare(target: str, num_robots: int, seconds: float, pictures: Pictures) -> Compared:
    """Robots that ask on both links in turn, for some seconds. Raises what a link raises."""
    period_s = num_robots / RATE_HZ
    pace = [Pace(number * period_s / num_robots, period_s, seconds) for number in range(num_robots)]
    each = await asyncio.gather(*(_robot(target, f"bench-{n}", pace[n], pictures) for n in range(num_robots)))
    return Compared(
        [answer for robot in each for answer in robot.stream],
        [answer for robot in each for answer in robot.unary],
        [ping for robot in each for ping in robot.pings],
    )


@dataclass(frozen=True, slots=True)
class Pace:
    """When a robot asks, in seconds."""

    first: float
    period: float
    until: float

    async def turns(self) -> AsyncIterator[int]:
        """The number of each turn, when it begins. A turn that took longer than a period delays no other's schedule."""
        began = time.monotonic()
        for number in itertools.count():
            at = self.first + number * self.period
            if max(at, time.monotonic() - began) > self.until:
                return
            await asyncio.sleep(max(0.0, began + at - time.monotonic()))
            yield number


async def _robot(target: str, name: str, pace: Pace, pictures: Pictures) -> Compared:
    options = channel_options(target, MAX_MESSAGE_BYTES, proxy=False)
    async with AsyncPlanClient(target) as client, grpc.aio.insecure_channel(target, options=options) as channel:
        policy = await client.policy()
        stream = StreamLink(channel.stream_stream(method_path("Control"))())
        await stream.open(hello(policy, robot(policy, name), INSTRUCTION, None))
        found = Compared(pings=stream.pings)
        asking = asyncio.create_task(_ask_in_turn(stream, UnaryLink(client), pace, seen_by(policy, pictures), found))
        tasks = [asking, asyncio.create_task(stream.read()), asyncio.create_task(stream.ping())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            await stream.close()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return found


async def _ask_in_turn(
    stream: StreamLink, unary: UnaryLink, pace: Pace, seen: Sequence[Observation], found: Compared
) -> None:
    async for turn in pace.turns():
        link, answers = ((stream, found.stream), (unary, found.unary))[turn % 2]
        number = turn // 2
        step = EXECUTED_STEPS * number
        executed = EXECUTED_STEPS if number else 0
        answer = await _asked(
            link, number, replace(seen[number % len(seen)], control_step=step, executed_steps=executed)
        )
        if number >= WARM_UP:
            answers.append(answer)


async def _asked(link: PlanLink, number: int, seen: Observation) -> Answer:
    began = time.monotonic()
    chunk = await link.plan(number, seen)
    ended = time.monotonic()
    received, sent = chunk.server_recv_ns / 1e9, chunk.server_send_ns / 1e9
    plan = chunk.receipt.stage_s["total"]
    return Answer(ended - began, plan, received - began, sent - received, ended - sent)


def seen_by(policy: PolicyInfo, pictures: Pictures) -> list[Observation]:
    """An observation for each recorded frame, its pictures encoded as the policy wants them."""
    names = [camera.name for camera in policy.cameras]
    return [
        Observation(
            images=encode_images(pictures.at(number, names), policy.cameras),
            state=pose(policy),
            instruction=INSTRUCTION,
            options=OPTIONS,
            seed=1,
        )
        for number in range(len(pictures.frames))
    ]
