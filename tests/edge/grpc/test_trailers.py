"""An error whose texts are long reaches every client whole: its details fit into gRPC's 8 KiB of headers."""

from __future__ import annotations

from dataclasses import replace

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.edge.fakes import example_image, example_observation
from tests.edge.robots import GrpcRobot, facts_of, message_of
from tests.edge.served import Served
from wavserve.clients.plan_client import PlanClient
from wavserve.core.errors import InvalidRequest, Overloaded, UnknownSession
from wavserve.core.messages import Observation

LETTERS = ["x", "é", "日", "🤖", "%", "\n"]
PLAN = "/wavserve.v1.PlanService/Plan"


def seen_by(camera: str) -> Observation:
    return example_observation(images=(replace(example_image(), camera=camera),))


@pytest.mark.parametrize("letter", LETTERS)
def test_a_long_camera_name_is_a_typed_error(letter: str, served: Served) -> None:
    with PlanClient(served.address.grpc) as client, pytest.raises(InvalidRequest) as caught:
        client.plan(seen_by(letter * 15_000))
    assert caught.value.error_id is not None
    assert caught.value.field.startswith("images")


@pytest.mark.parametrize("letter", LETTERS)
def test_a_name_of_100_000_letters_is_refused_on_a_plain_channel(letter: str, grpc_robot: GrpcRobot) -> None:
    raw = message_of(seen_by(letter * 100_000)).SerializeToString()
    with pytest.raises(grpc.RpcError) as caught:
        grpc_robot.channel.unary_unary(PLAN)(raw, timeout=30)
    assert caught.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert {"error_id", "field", "expected", "actual", "retryable"} <= set(facts_of(caught.value))


@pytest.mark.parametrize("letter", LETTERS)
def test_long_texts_of_an_error_are_cut_and_not_lost(letter: str, served: Served) -> None:
    long = letter * 100_000
    with PlanClient(served.address.grpc) as client:
        for error in (UnknownSession(long, long, long), Overloaded(long, 2.5), ZeroDivisionError(long)):
            served.policy.error = error
            kind = type(error) if isinstance(error, UnknownSession | Overloaded) else Exception
            with pytest.raises(kind) as caught:
                client.plan(example_observation())
            assert str(getattr(caught.value, "error_id", "")).startswith("urn:uuid:")


def test_a_long_service_name_is_unknown_to_the_health_check(served: Served) -> None:
    with grpc.insecure_channel(served.address.grpc) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            health.Check(health_pb2.HealthCheckRequest(service="日" * 100_000), timeout=30)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
