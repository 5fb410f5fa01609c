"""Single calls to two gateways in this process, over gRPC and HTTP, blocking and awaited: who is asked with what."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from tests.clients.robots import KINDS, AwaitingRobot, BlockingRobot
from tests.clients.servers import black_hole
from tests.edge.fakes import RecordingPolicy, example_limits, example_observation
from tests.edge.robots import serving
from wavserve.clients.async_client import AsyncPlanClient
from wavserve.core.errors import (
    ContractMismatch,
    ModelDown,
    NotReady,
    OutcomeUnknown,
    Overloaded,
    SequenceConflict,
    StoreUnavailable,
    UnsafeChunk,
    WavserveError,
)
from wavserve.core.rendezvous import ranked
from wavserve.system.processes import free_ports
from wavserve.system.telemetry import Metrics

Robot = BlockingRobot | AwaitingRobot


@dataclass(eq=False)
class Pair:
    """A robot's client, the policy of the gateway that it prefers, and that of the other one."""

    robot: Robot
    first: RecordingPolicy
    second: RecordingPolicy


def preferring(first: str, *others: str) -> str:
    """The id of a robot that prefers the first gateway."""
    return next(f"r{i}" for i in range(99) if ranked(f"r{i}", [first, *others])[0] == first)


@contextmanager
def pair(kind: type[Robot], transport: str) -> Iterator[Pair]:
    with ExitStack() as stack:
        policies = RecordingPolicy(), RecordingPolicy()
        addresses = [
            getattr(stack.enter_context(serving(policy, example_limits(), Metrics())), transport) for policy in policies
        ]
        robot = kind(addresses, robot_id=preferring(*addresses))
        stack.callback(robot.end)
        stack.callback(robot.close)
        yield Pair(robot, *policies)


@pytest.fixture(params=[(kind, way) for kind in KINDS for way in ("grpc", "http")], ids=str)
def served(request: pytest.FixtureRequest) -> Iterator[Pair]:
    kind, transport = request.param
    with pair(kind, transport) as opened:
        yield opened


def test_the_next_gateway_gets_the_same_request_and_what_is_left_of_its_deadline(served: Pair) -> None:
    served.first.error = NotReady("the service is draining: use another server")
    sent = example_observation(session_id="s", sequence=3, deadline_ms=60_000)
    assert served.robot.plan(sent).sequence == 3
    [refused], [planned] = served.first.requests, served.second.requests
    assert (planned.session_id, planned.sequence, planned.seed) == ("s", 3, refused.seed)
    assert planned.images.keys() == refused.images.keys()
    served.robot.plan(sent)
    assert len(served.first.requests) == 1  # the client stays where it was served


@pytest.mark.parametrize("error", [StoreUnavailable("no redis"), OutcomeUnknown("perhaps"), ModelDown("restarting")])
def test_what_lies_at_the_gateway_moves_a_call(error: WavserveError) -> None:
    with pair(BlockingRobot, "grpc") as served:
        served.first.error = error
        served.robot.plan(example_observation())
        assert len(served.second.requests) == 1


@pytest.mark.parametrize("error", [SequenceConflict("sequence", "above 3", 3), Overloaded("full"), UnsafeChunk("fast")])
def test_what_lies_at_the_request_or_at_the_load_does_not(error: WavserveError) -> None:
    with pair(BlockingRobot, "grpc") as served:
        served.first.error = error
        with pytest.raises(type(error)):
            served.robot.plan(example_observation())
        assert not served.second.requests


def test_all_reasons_are_told_and_a_plan_that_may_be_committed_counts_most(served: Pair) -> None:
    served.first.error, served.second.error = OutcomeUnknown("perhaps stored"), NotReady("starting")
    with pytest.raises(OutcomeUnknown, match=r"perhaps stored; .*: starting"):
        served.robot.plan(example_observation())


def test_a_gateway_with_another_policy_makes_no_plan(served: Pair) -> None:
    served.robot.plan(example_observation())
    served.first.error, served.second.digest = NotReady("draining"), "e" * 64
    with pytest.raises(ContractMismatch, match=f"policy_digest: expected {'d' * 64}.* got {'e' * 64}"):
        served.robot.plan(example_observation())
    assert not served.second.requests
    served.second.digest = "d" * 64
    served.robot.plan(example_observation())
    assert len(served.second.requests) == 1


def test_a_policy_that_both_gateways_replaced_is_an_error_that_says_so(served: Pair) -> None:
    served.robot.plan(example_observation())
    for policy in (served.first, served.second):
        policy.error = NotReady("draining")
    with pytest.raises(NotReady):
        served.robot.plan(example_observation())
    for policy in (served.first, served.second):
        policy.error, policy.digest = None, "e" * 64
    with pytest.raises(ContractMismatch, match="at all 2 gateways: the policy was replaced, and needs a new client"):
        served.robot.plan(example_observation())


@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_a_port_that_refuses_leaves_nothing_unknown(transport: str) -> None:
    """Nothing was sent to the first one, so the second one's refusal is the whole truth."""
    with ExitStack() as stack:
        policy = RecordingPolicy()
        address = getattr(stack.enter_context(serving(policy, example_limits(), Metrics())), transport)
        absent = f"{'http://' if transport == 'http' else ''}127.0.0.1:{free_ports(1)[0]}"
        robot = stack.enter_context(BlockingRobot([absent, address], robot_id=preferring(absent, address)))
        policy.error = Overloaded("full")
        with pytest.raises(Overloaded):
            robot.plan(example_observation())
        assert len(policy.requests) == 1


@pytest.mark.parametrize("transport", ["grpc", "http"])
async def test_a_program_that_gives_its_plans_up_leaves_a_gateway_that_stands_still(transport: str) -> None:
    """It cancels each one before any limit of the client's ends it."""
    with black_hole() as hole, serving(RecordingPolicy(), example_limits(), Metrics()) as served:
        silent, living = f"{'http://' if transport == 'http' else ''}{hole}", getattr(served, transport)
        async with AsyncPlanClient([silent, living], robot_id=preferring(silent, living)) as client:
            for _ in range(40):
                asked = asyncio.create_task(client.plan(example_observation()))
                done, _ = await asyncio.wait((asked,), timeout=0.5)
                if done:
                    break
                asked.cancel()
                await asyncio.wait((asked,))
            assert client.gateway == living
            assert (await client.plan(example_observation())).sequence == 0


async def test_a_plan_that_is_given_up_moves_nobody_from_a_gateway_that_answers() -> None:
    with (
        serving(RecordingPolicy(), example_limits(), Metrics()) as one,
        serving(RecordingPolicy(), example_limits(), Metrics()) as other,
    ):
        async with AsyncPlanClient([one.http, other.http], robot_id=preferring(one.http, other.http)) as client:
            await client.plan(example_observation())
            for _ in range(3):
                asked = asyncio.create_task(client.plan(example_observation()))
                await asyncio.sleep(0)
                asked.cancel()
                await asyncio.wait((asked,))
            await client.plan(example_observation())
            assert client.gateway == one.http


def test_a_reset_goes_to_the_next_gateway_too(served: Pair) -> None:
    served.first.error = NotReady("draining")
    served.robot.reset("s")
    assert served.second.resets == ["s"]
