"""A robot whose gateway dies, drains, stands still or vanishes goes on at the next one, in the same session.

Real gateways on a real Redis, in processes of their own, over a fake backend.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtest.redis_server import RedisServer, redis_server
from tests.clients.servers import black_hole
from tests.planning.rig import example_request, example_spec
from wavserve.cli import main
from wavserve.clients.async_client import AsyncPlanClient
from wavserve.clients.images import encode_images
from wavserve.clients.plan_client import PlanClient
from wavserve.clients.robot import LinkDown, RobotDescription, RobotObservation, RobotOptions
from wavserve.clients.robot_client import RobotClient
from wavserve.core.control import GoAway, ObservationDropped, Welcome
from wavserve.core.errors import DeadlineExceeded, NotReady
from wavserve.core.messages import ActionChunk, Observation, PolicyInfo
from wavserve.core.rendezvous import ranked
from wavserve.core.types import PlanRequest
from wavserve.system import serve_process
from wavserve.system.processes import free_ports
from wavserve.system.serve_process import Child

log = logging.getLogger(__name__)

GATEWAY = (*serve_process.SERVE[:2], "tests.clients.gateway_process")
PATIENCE_S = 30.0
DEAD_WITHIN_S = 45.0
"""Generous for 15 s on a busy machine. By gRPC's own defaults it would be a minute."""
WARM = {"warm_start": True}
CALL_S = 0.02
"""Of each call of a model: a plan takes a quarter of a second, so that a signal finds it under way."""


@dataclass(eq=False)
class Gateways:
    """Two gateways on one Redis. A test that kills one gets it again."""

    folder: Path
    redis: RedisServer
    children: list[Child]

    def start(self) -> Child:
        log = self.folder / f"gateway-{len(list(self.folder.iterdir()))}.log"
        return serve_process.start(log, [f"--redis={self.redis.url}", f"--call-s={CALL_S}"], command=GATEWAY)

    def revive(self) -> None:
        """Each gateway is there and serves. One that drains still ends."""
        for index, child in enumerate(self.children):
            child.process.send_signal(signal.SIGCONT)
            if child.process.poll() is not None or not child.is_ready():
                kill(child)
                self.children[index] = self.start()

    def child_at(self, address: str) -> Child:
        [child] = [each for each in self.children if address in (each.grpc, each.http)]
        return child

    def grpc(self) -> list[str]:
        return [child.grpc for child in self.children]

    def over(self, transport: str) -> list[str]:
        return [getattr(child, transport) for child in self.children]

    def close(self) -> None:
        for child in self.children:
            kill(child)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateways]:
    with redis_server() as redis:
        gateways = Gateways(tmp_path_factory.mktemp("gateways"), redis, [])
        try:
            for _ in range(2):
                gateways.children.append(gateways.start())
            yield gateways
        finally:
            gateways.close()


@pytest.fixture
def gateways(running: Gateways) -> Gateways:
    running.revive()
    return running


def kill(child: Child) -> None:
    child.process.kill()
    child.process.wait()


def drain(child: Child) -> None:
    child.process.terminate()


def stall(child: Child) -> None:
    child.process.send_signal(signal.SIGSTOP)


# ------------------------------------------------------------------------------------------------------- single calls


def observation(policy: PolicyInfo, step: int, **changes: Any) -> Observation:
    request = example_request(example_spec())
    seen = Observation(
        images=encode_images(dict(request.images), policy.cameras),
        state=tuple(request.state.tolist()),
        instruction="pick",
        seed=7,
        sequence=step,
        control_step=3 * step,
        executed_steps=3 if step else 0,
        options=WARM,
    )
    return replace(seen, **changes)


def episode(client: PlanClient, steps: int, at: int = -1, act: Callable[[], None] = lambda: None) -> list[ActionChunk]:
    """The plans of one session. `act` is called while the plan of step `at` runs."""
    policy, session_id, chunks = client.policy(), None, []
    with ThreadPoolExecutor(1) as pool:
        for step in range(steps):
            asked = pool.submit(client.plan, observation(policy, step, session_id=session_id))
            if step == at:
                time.sleep(5 * CALL_S)
                act()
            chunks.append(asked.result(PATIENCE_S))
            session_id = chunks[-1].session_id
    return chunks


@pytest.mark.parametrize("transport", ["grpc", "http"])
@pytest.mark.parametrize("end", [kill, drain])
def test_a_session_goes_on_bit_for_bit_at_another_gateway(
    gateways: Gateways, transport: str, end: Callable[[Child], None]
) -> None:
    with PlanClient(gateways.over(transport)[0]) as alone:
        expected = episode(alone, 4)
    with PlanClient(gateways.over(transport)) as client:
        first = client.gateway
        chunks = episode(client, 4, at=1, act=lambda: end(gateways.child_at(first)))
        assert client.gateway != first
    assert len({chunk.session_id for chunk in chunks}) == 1
    assert [chunk.fresh_memory for chunk in chunks] == [True, False, False, False]
    for mine, theirs in zip(chunks, expected, strict=True):
        assert np.array_equal(mine.actions, theirs.actions)
    assert [chunk.receipt.warm_start for chunk in chunks] == [False, True, True, True]


def test_a_retry_at_another_gateway_gets_the_first_answer(gateways: Gateways) -> None:
    with PlanClient(gateways.grpc()[0]) as one, PlanClient(gateways.grpc()[1]) as other:
        policy = one.policy()
        session_id = one.plan(observation(policy, 0)).session_id
        sent = observation(policy, 1, session_id=session_id, seed=None)
        assert np.array_equal(one.plan(sent).actions, other.plan(sent).actions)


def test_a_deadline_holds_when_a_gateway_stands_still(gateways: Gateways) -> None:
    """The plan is lost, for nobody may plan past its deadline. The next one goes to the other gateway."""
    with PlanClient(gateways.over("grpc")) as client:
        policy, first = client.policy(), client.gateway
        session_id = client.plan(observation(policy, 0)).session_id
        stall(gateways.child_at(first))
        with pytest.raises(DeadlineExceeded, match=first):
            client.plan(observation(policy, 1, session_id=session_id, deadline_ms=500))
        chunk = client.plan(observation(policy, 1, session_id=session_id, deadline_ms=20_000))
        assert client.gateway != first
        assert not chunk.fresh_memory


@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_a_plan_without_a_deadline_leaves_a_gateway_that_stands_still(gateways: Gateways, transport: str) -> None:
    """It is found dead within 15 s, and the other gateway answers."""
    with PlanClient(gateways.over(transport)) as client:
        policy, first = client.policy(), client.gateway
        session_id = client.plan(observation(policy, 0)).session_id
        stall(gateways.child_at(first))
        began = time.monotonic()
        chunk = client.plan(observation(policy, 1, session_id=session_id), timeout_s=None)
        took_s = time.monotonic() - began
        log.info("%s: %.1f s until another gateway answered", transport, took_s)
        assert took_s < DEAD_WITHIN_S
        assert client.gateway != first
        assert (chunk.sequence, chunk.fresh_memory) == (1, False)


@pytest.mark.parametrize("transport", ["grpc", "http"])
async def test_a_program_that_gives_its_plans_up_itself_leaves_a_gateway_that_stands_still(
    gateways: Gateways, transport: str
) -> None:
    """It gives each one up long before the client finds the gateway dead."""
    async with AsyncPlanClient(gateways.over(transport)) as client:
        policy, first = await client.policy(), client.gateway
        session_id = (await client.plan(observation(policy, 0))).session_id
        stall(gateways.child_at(first))
        began = time.monotonic()
        for _ in range(60):
            asked = asyncio.create_task(client.plan(observation(policy, 1, session_id=session_id)))
            if (await asyncio.wait((asked,), timeout=1.0))[0]:
                break
            asked.cancel()
            await asyncio.wait((asked,))
        log.info("%s: %.1f s until another gateway answered", transport, time.monotonic() - began)
        assert client.gateway != first
        assert (asked.result().sequence, asked.result().fresh_memory) == (1, False)


def test_a_short_call_has_time_for_both_gateways(gateways: Gateways) -> None:
    with PlanClient(gateways.over("grpc")) as client:
        policy, first = client.policy(), client.gateway
        session_id = client.plan(observation(policy, 0)).session_id
        stall(gateways.child_at(first))
        client.reset(session_id, timeout_s=4.0)
        assert client.gateway != first


@pytest.mark.parametrize("scheme", ["", "http://"])
def test_an_address_without_a_service_costs_one_attempt(gateways: Gateways, scheme: str) -> None:
    transport = "http" if scheme else "grpc"
    with black_hole() as hole:
        absent = [f"{scheme}{hole}", f"{scheme}127.0.0.1:{free_ports(1)[0]}"]
        served = gateways.over(transport)[0]
        targets = [*absent, served]
        robot_id = next(f"r{i}" for i in range(99) if ranked(f"r{i}", targets)[2] == served)
        with PlanClient(targets, robot_id=robot_id) as client:
            assert len(client.plan(observation(client.policy(), 0, deadline_ms=20_000)).actions)
            assert client.gateway == served


def test_the_error_names_every_gateway_with_its_reason(gateways: Gateways) -> None:
    ports = free_ports(2)
    targets = ",".join(f"127.0.0.1:{port}" for port in ports)
    with PlanClient(targets) as client, pytest.raises(NotReady) as caught:
        client.policy()
    assert all(f"127.0.0.1:{port}: no service answers: " in str(caught.value) for port in ports)


# ------------------------------------------------------------------------------------------------------------ streams


@dataclass(eq=False)
class Streaming:
    """A robot on a stream."""

    client: RobotClient
    request: PlanRequest
    episodes: int = 0

    def next(self, kind: type[Any], within_s: float = PATIENCE_S) -> Any:
        """The next event of a kind."""
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            event = self.client.poll()
            if isinstance(event, kind):
                return event
            time.sleep(0.002)
        raise AssertionError(f"no {kind} within {within_s:g} s")

    def observe(self, step: int) -> int | None:
        return self.client.observe(
            RobotObservation(
                images=self.request.images,
                state=tuple(self.request.state.tolist()),
                control_step=3 * step,
                executed_steps=3 * step,
                instruction="pick",
                seed=7,
            )
        )

    def plan(self, step: int) -> ActionChunk:
        """The chunk of an observation, made again while the stream is away."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            if self.client.link.connected and self.observe(step) is not None:
                event = self.next((ActionChunk, LinkDown, ObservationDropped))
                if isinstance(event, ActionChunk):
                    return event
            time.sleep(0.005)
        raise AssertionError("no chunk")


@pytest.fixture
def streaming(gateways: Gateways) -> Iterator[Streaming]:
    request = example_request(example_spec())
    with PlanClient(gateways.over("grpc")) as client:
        policy = client.policy()
    robot = RobotDescription.as_declared(policy, "arm", {each.name: "as_captured" for each in policy.cameras})
    with RobotClient(gateways.over("grpc"), robot, RobotOptions(jpeg_quality=None, planner=WARM)) as client:
        client.connect(PATIENCE_S)
        yield Streaming(client, request)


@pytest.mark.parametrize("end", [kill, drain, stall])
def test_a_stream_resumes_its_session_at_the_other_gateway(
    gateways: Gateways, streaming: Streaming, end: Callable[[Child], None]
) -> None:
    first = streaming.client.gateway
    before = streaming.next(Welcome)
    assert streaming.plan(0).fresh_memory
    last = streaming.plan(1)
    end(gateways.child_at(first))
    ended = time.monotonic()
    after = streaming.next(Welcome)
    log.info("%s: %.3f s without a stream", end.__name__, time.monotonic() - ended)
    assert streaming.client.gateway != first
    assert after.resumed
    assert (after.session_id, after.epoch) == (before.session_id, before.epoch + 1)
    assert after.next_sequence == last.sequence + 1
    chunk = streaming.plan(2)
    assert not chunk.fresh_memory
    assert chunk.receipt.warm_start


def test_onlookers_see_a_robot_at_the_gateway_that_has_its_stream(
    gateways: Gateways, streaming: Streaming, capsys: pytest.CaptureFixture[str]
) -> None:
    streaming.plan(0)
    assert main(["watch", ",".join(gateways.grpc()), "--once", "--json"]) == 0
    looks = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    seen = {look["gateway"]: [robot["robot_id"] for robot in look["robots"]] for look in looks}
    expected = {each: ["arm"] if each == streaming.client.gateway else [] for each in gateways.grpc()}
    assert seen == expected


def test_a_drained_gateway_answers_the_plan_under_way_and_hands_the_robot_over(
    gateways: Gateways, streaming: Streaming
) -> None:
    streaming.next(Welcome)
    sequence = streaming.observe(0)
    time.sleep(5 * CALL_S)
    drain(gateways.child_at(streaming.client.gateway))
    streaming.next(GoAway)
    assert streaming.next(ActionChunk).sequence == sequence
    assert streaming.next(LinkDown).pause_s == 0.0
    after = streaming.next(Welcome)
    assert after.resumed
    assert after.next_sequence == sequence + 1


def test_a_gateway_that_wakes_up_commits_nothing_over_the_other_one(gateways: Gateways, streaming: Streaming) -> None:
    """The epoch fences it: it was stopped while it planned, and the session went on elsewhere."""
    streaming.plan(0)
    first = gateways.child_at(streaming.client.gateway)
    streaming.observe(1)
    time.sleep(5 * CALL_S)
    stall(first)
    streaming.next(LinkDown)
    chunk = streaming.plan(1)
    os.kill(first.process.pid, signal.SIGCONT)
    time.sleep(30 * CALL_S)
    following = streaming.plan(2)
    assert (chunk.epoch, following.epoch) == (2, 2)
    assert following.sequence > chunk.sequence
    assert not following.fresh_memory
