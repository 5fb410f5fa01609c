"""A robot's stream: the newest observation wins, every one is answered, and pings are answered meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.clock import yield_to_loop
from tests.edge.grpc.control.links import Gate, Link, Server, serving_policy, serving_rig
from tests.planning.rig import RigOptions, example_request, rigged
from tests.policy.stores import RemoteStore
from wavserve.core.control import (
    Bye,
    DropReason,
    ExecutionReport,
    GoAway,
    ObservationDropped,
    Ping,
    Pong,
    ResetAck,
    ResetStream,
    StreamError,
)
from wavserve.core.messages import ActionChunk
from wavserve.pb import wavserve_pb2 as pb
from wavserve.policy.policy import Policy
from wavserve.policy.sessions import MemorySessions

OUTCOMES = ("planned", "superseded", "invalid-request", "unanswered")


async def held(server: Server, link: Link, sequence: int) -> None:
    """The robot sends an observation whose plan does not end before the gate is opened."""
    server.gate.close()
    await link.send(link.observation(sequence))
    await asyncio.wait_for(server.gate.began.wait(), 15)


async def test_a_robot_gets_a_chunk_for_its_observation(server: Server) -> None:
    link = server.link()
    welcome = await link.open()
    assert (welcome.protocol_version, welcome.epoch, welcome.next_sequence, welcome.resumed) == (1, 1, 0, False)
    assert (welcome.max_in_flight, welcome.ping_interval_ms, welcome.resume_within_ms) == (1, 100, 10_000)
    assert (welcome.dt_ns, welcome.policy.name) == (100_000_000, "example")
    await link.send(link.observation(0, control_step=7))
    chunk = await link.receive(ActionChunk)
    assert (chunk.session_id, chunk.epoch, chunk.sequence) == (welcome.session_id, 1, 0)
    assert (chunk.first_control_step, chunk.valid_until_step) == (7, 13)
    assert 0 < chunk.server_recv_ns <= chunk.server_send_ns
    assert chunk.receipt.iterations == ()
    await link.send(Bye())
    assert await link.end() == ("OK", {})
    assert server.counted("control_observations_total", outcome="planned") == 1
    assert server.counted("control_streams_ended_total", outcome="ok") == 1
    assert len(server.robots) == 0


async def test_a_stream_plans_as_a_unary_request_does(server: Server) -> None:
    link = server.link(want_iterations=True)
    await link.open()
    await link.send(link.observation(0), link.observation(1, seed=2, executed_steps=2))
    first, second = await link.receive(ActionChunk), await link.receive(ActionChunk)
    one = replace(example_request(link.spec, 1), instruction="pick")
    unary = await server.policy.plan(one, None, None)
    two = replace(example_request(link.spec, 2), instruction="pick", sequence=1, executed_steps=2)
    unary_second = await server.policy.plan(replace(two, session_id=unary.session_id), None, None)
    np.testing.assert_array_equal(first.actions, unary.actions)
    np.testing.assert_array_equal(second.actions, unary_second.actions)
    assert len(first.receipt.iterations) == len(unary.receipt.iterations) > 0


async def test_the_newest_observation_wins(server: Server) -> None:
    link = server.link()
    await link.open()
    await held(server, link, 0)
    await link.send(link.observation(1), link.observation(2), link.observation(5))
    assert await link.receive(ObservationDropped) == ObservationDropped(1, DropReason.SUPERSEDED, 2, 1)
    assert await link.receive(ObservationDropped) == ObservationDropped(2, DropReason.SUPERSEDED, 5, 1)
    server.gate.open()
    assert [(await link.receive(ActionChunk)).sequence for _ in range(2)] == [0, 5]
    assert server.counted("control_observations_total", outcome="superseded") == 2
    assert server.counted("control_observations_total", outcome="planned") == 2


async def test_pings_are_answered_while_a_plan_runs(server: Server) -> None:
    link = server.link()
    await link.open()
    await held(server, link, 0)
    for number in range(3):
        before = time.monotonic_ns()
        await link.send(Ping(number, 77))
        pong = await link.receive(Pong)
        assert (pong.id, pong.client_mono_ns) == (number, 77)
        assert before <= pong.server_recv_ns <= pong.server_send_ns <= time.monotonic_ns()
    server.gate.open()
    await link.receive(ActionChunk)


async def test_pictures_of_a_superseded_observation_are_not_decoded(server: Server) -> None:
    """Nobody looks at the pictures of an observation that gives way, so nobody finds that they are broken."""
    link = server.link()
    await link.open()
    await held(server, link, 0)
    await link.send(link.observation(1, images=()), link.observation(2))
    assert (await link.receive(ObservationDropped)).reason is DropReason.SUPERSEDED
    server.gate.open()
    assert [(await link.receive(ActionChunk)).sequence for _ in range(2)] == [0, 2]


async def test_a_reset_drops_what_waits_and_what_runs(server: Server) -> None:
    link = server.link()
    welcome = await link.open()
    await held(server, link, 3)
    await link.send(link.observation(4), ResetStream(9))
    dropped = [await link.receive(ObservationDropped) for _ in range(2)]
    assert {(each.sequence, each.reason) for each in dropped} == {(3, DropReason.RESET), (4, DropReason.RESET)}
    assert await link.receive(ResetAck) == ResetAck(9, 2, 5)
    server.gate.open()
    await link.send(link.observation(5), link.observation(6, seed=2, epoch=2))
    assert await link.receive(ObservationDropped) == ObservationDropped(5, DropReason.RESET, 0, 1)
    chunk = await link.receive(ActionChunk)
    assert (chunk.session_id, chunk.epoch, chunk.sequence) == (welcome.session_id, 2, 6)
    fresh = await server.policy.plan(replace(example_request(link.spec, 2), instruction="pick", sequence=6), None, None)
    np.testing.assert_array_equal(chunk.actions, fresh.actions)


async def test_observations_between_a_reset_and_its_answer_are_of_before_it(server: Server) -> None:
    link = server.link()
    await link.open()
    await link.send(ResetStream(1), link.observation(0), ResetStream(2), link.observation(1, epoch=1))
    received = [await link.receive(object) for _ in range(4)]
    assert [each.epoch for each in received if isinstance(each, ResetAck)] == [2, 3]
    assert {each.sequence for each in received if isinstance(each, ObservationDropped)} == {0, 1}
    await link.send(link.observation(2, epoch=3))
    assert (await link.receive(ActionChunk)).epoch == 3


async def test_an_instruction_lasts_until_another_comes(server: Server) -> None:
    link = server.link()
    await link.open()
    digests = []
    for sequence, instruction in enumerate(("", "place", "")):
        await link.send(link.observation(sequence, instruction=instruction))
        digests.append((await link.receive(ActionChunk)).receipt.digests["instruction"])
    assert digests[0] != digests[1] == digests[2]


async def test_an_observation_whose_deadline_passes_while_it_waits_is_too_old(server: Server) -> None:
    link = server.link()
    await link.open()
    await held(server, link, 0)
    await link.send(link.observation(1, deadline_ms=1), Ping(1))
    await link.receive(Pong)
    await asyncio.sleep(0.01)
    server.gate.open()
    assert (await link.receive(ActionChunk)).sequence == 0
    assert await link.receive(ObservationDropped) == ObservationDropped(1, DropReason.TOO_OLD, 0, 1)


async def test_a_plan_that_misses_its_deadline_is_an_error_of_its_observation(server: Server) -> None:
    link = server.link()
    await link.open()
    server.gate.close()
    await link.send(link.observation(0, deadline_ms=300))
    error = await link.receive(StreamError)
    assert (error.name, error.sequence, error.fatal) == ("deadline-exceeded", 0, False)
    server.gate.open()
    await link.send(link.observation(1))
    assert (await link.receive(ActionChunk)).sequence == 1


async def test_a_client_that_goes_away_cancels_its_plan(server: Server) -> None:
    link = server.link()
    await link.open()
    await held(server, link, 0)
    await link.hang_up()
    await server.until(lambda: len(server.robots) == 0)
    server.gate.open()
    await server.until(lambda: server.counted("control_streams_ended_total", outcome="cancelled") == 1)
    again = server.link()
    welcome = await again.open(resume_session_id=link.welcome.session_id)  # type: ignore[union-attr]
    assert (welcome.resumed, welcome.next_sequence) == (True, 0)


async def test_links_that_break_at_any_moment_are_no_internal_errors(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    for turns in range(24):
        link = server.link(f"arm-{turns}")
        await link.send(link.hello, *(Ping(number) for number in range(turns % 3)), link.observation(0))
        await yield_to_loop(turns * 5)
        await link.hang_up()
    await server.until(lambda: len(server.robots) == 0)
    await server.until(lambda: server.counted("control_streams_ended_total", outcome="cancelled") > 0)
    assert [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == []
    await server.link().open()


async def test_a_client_that_sends_no_more_gets_what_is_under_way(server: Server) -> None:
    link = server.link()
    await link.open()
    await held(server, link, 0)
    await link.send(link.observation(1))
    await link.call.done_writing()
    server.gate.open()
    assert [(await link.receive(ActionChunk)).sequence for _ in range(2)] == [0, 1]
    assert await link.end() == ("OK", {})


async def test_bye_ends_the_stream_at_once(server: Server) -> None:
    link = server.link()
    await link.open()
    await held(server, link, 0)
    await link.send(Bye("done"))
    assert await link.end() == ("OK", {})
    assert len(server.robots) == 0


async def test_a_drain_answers_what_runs_and_sends_the_robot_away(server: Server) -> None:
    link, idle = server.link(), server.link("idle")
    await link.open()
    await idle.open()
    await held(server, link, 0)
    await link.send(link.observation(1), Ping(1))
    await link.receive(Pong)
    server.robots.drain()
    assert await link.receive(GoAway) == GoAway(10_000, "the server stops")
    assert await link.receive(ObservationDropped) == ObservationDropped(1, DropReason.DRAINING, 0, 1)
    await link.send(link.observation(2), Ping(2))
    assert await link.receive(ObservationDropped) == ObservationDropped(2, DropReason.DRAINING, 0, 1)
    assert (await link.receive(Pong)).id == 2
    server.gate.open()
    assert (await link.receive(ActionChunk)).sequence == 0
    assert await link.end() == ("OK", {})
    await idle.receive(GoAway)
    assert await idle.end() == ("OK", {})


async def test_a_drain_that_ends_a_plan_tells_the_robot(server: Server) -> None:
    link = server.link()
    await link.open()
    await held(server, link, 0)
    server.robots.drain()
    await server.policy.drain(0.05)  # type: ignore[attr-defined]  # as the service does
    await link.receive(GoAway)
    assert await link.receive(ObservationDropped) == ObservationDropped(0, DropReason.DRAINING, 0, 1)
    assert await link.end() == ("OK", {})


class SlowDecoding:
    """A policy that is asked late, as after a long decoding."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.decoding, self.decoded = asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)

    async def plan(self, *args: Any) -> ActionChunk:
        self.decoding.set()
        await self.decoded.wait()
        return await self._policy.plan(*args)


async def test_an_observation_that_is_decoded_while_the_drain_begins_is_dropped() -> None:
    async with rigged(RigOptions()) as rig:
        policy = SlowDecoding(rig.policy)
        async with serving_policy(policy, Gate()) as server:  # type: ignore[arg-type]  # the rest is the policy's
            link = server.link()
            await link.open()
            await link.send(link.observation(0))
            await asyncio.wait_for(policy.decoding.wait(), 15)
            server.robots.drain()
            await rig.policy.drain(0.05)
            await link.receive(GoAway)
            policy.decoded.set()
            assert await link.receive(ObservationDropped) == ObservationDropped(0, DropReason.DRAINING, 0, 1)
            assert await link.end() == ("OK", {})


async def test_a_report_is_counted(server: Server) -> None:
    link = server.link()
    await link.open()
    report = ExecutionReport(chunk_id="c", clamped_steps=2, starved_steps=3, chunk_age_ms=120.0, seam_jump=0.25)
    await link.send(report, replace(report, chunk_age_ms=500.0), Ping(1))
    await link.receive(Pong)
    assert server.counted("control_clamped_steps_total") == 4
    assert server.counted("control_starved_steps_total") == 6
    assert server.counted("control_chunk_age_seconds_sum") == pytest.approx(0.12)  # once for each chunk
    assert server.counted("control_seam_jump_sum") == pytest.approx(0.25)


async def test_a_message_that_is_none_is_an_error_and_the_stream_goes_on(server: Server) -> None:
    link = server.link()
    await link.open()
    bad = pb.ClientMessage(observation=pb.Observation(sequence=3, rtc=pb.RealTimeChunking()))
    bad.observation.rtc.MergeFromString(b"\xf8\x06\x01")
    await link.send(pb.ClientMessage(), bad, link.observation(4))
    first, second = await link.receive(StreamError), await link.receive(StreamError)
    assert (first.field, first.sequence, first.fatal) == ("message", None, False)
    assert (second.field, second.sequence, second.fatal) == ("rtc", 3, False)
    assert (await link.receive(ActionChunk)).sequence == 4


async def hang_up(_server: Server, link: Link) -> None:
    await link.hang_up()


async def say_bye(_server: Server, link: Link) -> None:
    await link.send(Bye())


async def lose_session(server: Server, link: Link) -> None:
    assert link.welcome is not None
    await server.policy.reset(link.welcome.session_id)
    server.gate.open()


@pytest.mark.parametrize("end", [hang_up, say_bye, lose_session])
async def test_every_observation_is_counted_once(
    server: Server, end: Callable[[Server, Link], Awaitable[None]]
) -> None:
    link = server.link()
    await link.open()
    bad = pb.ClientMessage(observation=pb.Observation(sequence=1))
    bad.observation.MergeFromString(b"\xf8\x06\x01")
    await link.send(link.observation(0))
    await link.receive(ActionChunk)
    await link.send(bad, link.observation(2, state=()))
    assert [(await link.receive(StreamError)).sequence for _ in range(2)] == [1, 2]
    await held(server, link, 3)
    await link.send(link.observation(4), link.observation(5))
    assert (await link.receive(ObservationDropped)).by_sequence == 5
    [robot] = server.robots.statuses()
    assert (robot.observations, robot.chunks, robot.errors, robot.dropped) == (6, 1, 2, 1)
    await end(server, link)
    await server.until(lambda: len(server.robots) == 0)
    counted = {name: server.counted("control_observations_total", outcome=name) for name in OUTCOMES}
    assert counted == {"planned": 1, "superseded": 1, "invalid-request": 2, "unanswered": 2}


async def say_hello_again(_server: Server, link: Link) -> None:
    await link.send(link.hello)


@pytest.mark.parametrize("end", [hang_up, say_bye, say_hello_again])
async def test_a_stream_that_ends_during_a_reset_leaves_no_robot(
    end: Callable[[Server, Link], Awaitable[None]],
) -> None:
    """The reset is stored, and the robot's id is free."""
    stores: list[SlowStore] = []

    def slow(sessions: MemorySessions) -> SlowStore:
        stores.append(SlowStore(sessions))
        return stores[-1]

    async with serving_rig(RigOptions(store=slow)) as (server, _):
        link, [store] = server.link(), stores
        welcome = await link.open()
        store.open.clear()
        store.began.clear()
        await link.send(ResetStream())
        await asyncio.wait_for(store.began.wait(), 15)
        await end(server, link)
        await asyncio.sleep(0.1)  # the server ends the stream, and waits for the commit
        store.open.set()
        await server.until(lambda: len(server.robots) == 0)
        assert (await server.link().open(resume_session_id=welcome.session_id)).epoch == 3


class SlowStore(RemoteStore):
    """Commits wait while it is not open."""

    def __init__(self, sessions: MemorySessions) -> None:
        super().__init__(sessions)
        self.open = asyncio.Event()
        self.open.set()

    async def arrive(self) -> None:
        await self.open.wait()
