"""The robot client against the real gateway over a fake backend: one robot's life, and a second one of its name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.edge.grpc.control.links import LIMITS
from tests.planning.rig import RigOptions, example_request, rigged
from wavserve.clients.async_robot_client import AsyncRobotClient
from wavserve.clients.player import ActionPlayer
from wavserve.clients.player_config import PlayerConfig
from wavserve.clients.robot import Event, LinkDown, RobotDescription, RobotObservation, RobotOptions
from wavserve.core.control import ExecutionReport, GoAway, ObservationDropped, ResetAck, StreamError, Welcome
from wavserve.core.errors import RobotBusy, StaleEpoch
from wavserve.core.messages import ActionChunk
from wavserve.core.rtc import RtcRequest
from wavserve.edge.frontend import Frontend
from wavserve.edge.grpc.control.robots import Robots
from wavserve.edge.grpc.plan import create_grpc_server
from wavserve.edge.trail import Trail
from wavserve.system.telemetry import Metrics

OPTIONS = RobotOptions(backoff_s=(0.02, 0.1), ping_interval_s=0.05, link_timeout_s=5.0)
PATIENCE_S = 30.0


class Service:
    """A policy, and a gRPC server over it that can be ended and begun again on its port."""

    def __init__(self, policy: Any, trail: Trail | None = None) -> None:
        self.policy = policy
        self.port = 0
        self._trail = trail

    async def start(self) -> None:
        self.robots = Robots()
        self.rpc = create_grpc_server(self.policy, LIMITS, Metrics(), robots=self.robots, trail=self._trail)
        self.port = self.rpc.add_insecure_port(f"127.0.0.1:{self.port}")
        await self.rpc.start()

    async def restart(self) -> None:
        await self.rpc.stop(None)
        await self.start()

    @property
    def robot(self) -> RobotDescription:
        info = Frontend(self.policy, LIMITS).info()
        return RobotDescription.as_declared(info, "arm", {each.name: "as_captured" for each in info.cameras})

    def observation(self, step: int, executed: int = 0, **changes: Any) -> RobotObservation:
        request = example_request(self.policy.spec)
        seen = RobotObservation(
            images=request.images,
            state=tuple(request.state.tolist()),
            control_step=step,
            executed_steps=executed,
            instruction="pick",
        )
        return replace(seen, **changes)

    @asynccontextmanager
    async def client(self, **changes: Any) -> AsyncIterator[tuple[AsyncRobotClient, asyncio.Queue[Event]]]:
        events: asyncio.Queue[Event] = asyncio.Queue()
        target = f"127.0.0.1:{self.port}"
        async with AsyncRobotClient(target, self.robot, replace(OPTIONS, **changes), events.put_nowait) as client:
            await client.connect(PATIENCE_S)
            yield client, events


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with rigged(RigOptions()) as rig:
        service = Service(rig.policy)
        await service.start()
        yield service
        await service.rpc.stop(None)


async def the_next(events: asyncio.Queue[Event], kind: type[Any]) -> Any:
    """The next event of a kind. An error before it fails the test."""
    while True:
        event = await asyncio.wait_for(events.get(), PATIENCE_S)
        if isinstance(event, kind):
            return event
        assert not isinstance(event, StreamError | ObservationDropped), event


async def test_a_robot_plays_the_chunks_of_a_real_gateway(service: Service) -> None:
    async with service.client() as (client, events):
        welcome = await the_next(events, Welcome)
        player = ActionPlayer(PlayerConfig(blend="replace"), len(welcome.policy.action.names), welcome.dt_ns / 1e9)
        player.begin_epoch(welcome.session_id, welcome.epoch)
        step = 0
        for sequence in range(4):
            client.observe(service.observation(step, player.executed_steps))
            chunk = await the_next(events, ActionChunk)
            assert player.offer(chunk, step).accepted
            for _ in range(3):
                command = player.command(step)
                assert command.action is not None
                assert command.action.tolist() == chunk.actions[command.index].tolist()
                step += 1
            client.report(ExecutionReport(chunk_id=chunk.chunk_id, executed_to_step=step))
            assert chunk.fresh_memory == (sequence == 0)
        assert client.latency.p95_s is not None
        client.reset()
        ack = await the_next(events, ResetAck)
        player.begin_epoch(welcome.session_id, ack.epoch)
        client.observe(service.observation(step, player.executed_steps))
        assert (await the_next(events, ActionChunk)).fresh_memory


async def test_a_session_goes_on_after_a_restart_of_the_gateway(service: Service) -> None:
    """The policy and its sessions live on, as behind another gateway."""
    async with service.client() as (client, events):
        first = await the_next(events, Welcome)
        client.observe(service.observation(0))
        await the_next(events, ActionChunk)
        await service.restart()
        again = await the_next(events, Welcome)
        assert (again.session_id, again.epoch, again.resumed) == (first.session_id, first.epoch + 1, True)
        client.observe(service.observation(3, 3))
        chunk = await the_next(events, ActionChunk)
        assert (chunk.epoch, chunk.sequence, chunk.fresh_memory) == (2, 1, False)


async def test_a_second_robot_of_the_same_name_is_refused_while_the_first_lives(service: Service) -> None:
    async with service.client() as (client, events):
        async with AsyncRobotClient(f"127.0.0.1:{service.port}", service.robot, OPTIONS) as other:
            with pytest.raises(RobotBusy):
                await other.connect(1.0)
        client.observe(service.observation(0))
        await the_next(events, ActionChunk)
    async with service.client():
        pass  # the name is free at once


async def test_a_drain_is_told_and_the_robot_waits_for_a_successor(service: Service) -> None:
    async with service.client() as (client, events):
        await the_next(events, Welcome)
        service.robots.drain()
        await the_next(events, GoAway)
        assert client.observe(service.observation(0)) is None
        await service.restart()
        assert (await the_next(events, Welcome)).resumed
        client.observe(service.observation(0))
        await the_next(events, ActionChunk)


async def test_what_the_gateway_refuses_of_an_observation_is_told_and_the_stream_goes_on(service: Service) -> None:
    async with service.client() as (client, events):
        client.observe(service.observation(0, state=(1.0,)))
        while not isinstance(event := await asyncio.wait_for(events.get(), PATIENCE_S), StreamError):
            pass
        assert (event.name, event.field, event.fatal) == ("invalid-request", "state", False)
        client.observe(service.observation(0))
        await the_next(events, ActionChunk)


async def test_jpeg_and_real_time_chunking_reach_the_policy(service: Service) -> None:
    async with service.client(rtc=RtcRequest(mode="rtc_guided"), jpeg_quality=95) as (client, events):
        client.observe(service.observation(0))
        chunk = await the_next(events, ActionChunk)
        rows = np.asarray(chunk.actions[2:])
        client.observe(service.observation(2, 2, left_over=rows, inference_delay=1))
        second = await the_next(events, ActionChunk)
        assert (second.sequence, second.frozen_prefix_steps) == (1, 1)
        assert second.actions[0].tobytes() == rows[0].tobytes()


async def test_the_session_of_a_stream_that_still_lives_is_taken_over(service: Service) -> None:
    """As after a partition, or when the program was started anew: the resumed stream ends the old one."""
    async with service.client() as (client, events):
        welcome = await the_next(events, Welcome)
        async with service.client(resume_session_id=welcome.session_id) as (_, others):
            assert (await the_next(others, Welcome)).epoch == 2
            assert (await the_next(events, StreamError)).fatal
            assert isinstance((await the_next(events, LinkDown)).error, StaleEpoch)
            assert isinstance((await the_next(events, LinkDown)).error, RobotBusy)
            assert client.observe(service.observation(0)) is None
        assert (await the_next(events, Welcome)).session_id != welcome.session_id
