"""Single calls to two gateways in this process, over gRPC and HTTP, blocking and awaited: who is asked with what."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from tests.clients.robots import KINDS, AwaitingRobot, BlockingRobot
from tests.edge.fakes import RecordingPolicy, example_limits, example_observation
from tests.edge.robots import serving
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
from wavserve.system.telemetry import Metrics

Robot = BlockingRobot | AwaitingRobot


@dataclass(eq=False)
class Pair:
    """A robot's client, the policy of the gateway that it prefers, and that of the other one."""

    robot: Robot
    first: RecordingPolicy
    second: RecordingPolicy


@contextmanager
def pair(kind: type[Robot], transport: str) -> Iterator[Pair]:
    with ExitStack() as stack:
        policies = RecordingPolicy(), RecordingPolicy()
        addresses = [
            getattr(stack.enter_context(serving(policy, example_limits(), Metrics())), transport) for policy in policies
        ]
        robot_id = next(f"r{i}" for i in range(99) if ranked(f"r{i}", addresses)[0] == addresses[0])
        robot = kind(addresses, robot_id=robot_id)
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


def test_a_reset_goes_to_the_next_gateway_too(served: Pair) -> None:
    served.first.error = NotReady("draining")
    served.robot.reset("s")
    assert served.second.resets == ["s"]
