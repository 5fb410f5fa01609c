"""What only gRPC has: health, reflection, its own deadlines and cancellation, and malformed messages."""

from __future__ import annotations

import threading
import time
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.edge.fakes import example_observation
from tests.edge.robots import GrpcRobot, facts_of, message_of
from tests.edge.served import Served
from wavserve.core.errors import Overloaded
from wavserve.pb import wavserve_pb2 as pb

PLAN = "/wavserve.v1.PlanService/Plan"
Serving = health_pb2.HealthCheckResponse


def test_reflection_lists_the_service(grpc_robot: GrpcRobot) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(grpc_robot.channel)
    questions = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="wavserve.v1.PlanService"),
    ]
    listed, described = list(stub.ServerReflectionInfo(iter(questions), timeout=30))
    names = {service.name for service in listed.list_services_response.service}
    assert names == {"wavserve.v1.PlanService", "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    assert described.file_descriptor_response.file_descriptor_proto == [pb.DESCRIPTOR.serialized_pb]


@pytest.mark.parametrize("service", ["", "wavserve.v1.PlanService"])
def test_health_follows_the_policy(service: str, grpc_robot: GrpcRobot, served: Served) -> None:
    check = health_pb2_grpc.HealthStub(grpc_robot.channel).Check
    question = health_pb2.HealthCheckRequest(service=service)
    assert check(question, timeout=30).status == Serving.SERVING
    served.policy.ready = False
    assert check(question, timeout=30).status == Serving.NOT_SERVING


def test_health_knows_no_other_service(grpc_robot: GrpcRobot) -> None:
    stub = health_pb2_grpc.HealthStub(grpc_robot.channel)
    other = health_pb2.HealthCheckRequest(service="other")
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(other, timeout=30)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service="\x1b[2J" + "x" * 20_000), timeout=30)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]
    assert len(caught.value.details()) < 400  # type: ignore[attr-defined]
    assert caught.value.details().isprintable()  # type: ignore[attr-defined]
    assert next(iter(stub.Watch(other, timeout=30))).status == Serving.SERVICE_UNKNOWN


def test_a_health_watch_sends_changes_only(grpc_robot: GrpcRobot, served: Served) -> None:
    watch: Any = health_pb2_grpc.HealthStub(grpc_robot.channel).Watch(health_pb2.HealthCheckRequest(), timeout=30)
    assert next(watch).status == Serving.SERVING
    served.policy.ready = False
    assert next(watch).status == Serving.NOT_SERVING
    watch.cancel()


def test_the_earlier_deadline_counts(grpc_robot: GrpcRobot, served: Served) -> None:
    before = time.monotonic()
    grpc_robot.stub.Plan(message_of(example_observation(deadline_ms=60_000)), timeout=20)
    grpc_robot.stub.Plan(message_of(example_observation(deadline_ms=5_000)), timeout=20)
    grpc_robot.stub.Plan(message_of(example_observation()), timeout=20)
    after = time.monotonic()
    grpc_robot.stub.Plan(message_of(example_observation()))
    assert served.policy.deadlines.pop() is None
    for deadline, seconds in zip(served.policy.deadlines, (20, 5, 20), strict=True):
        assert deadline is not None
        late = 0.01 * seconds  # gRPC sends its own deadline with two or three digits, rounded up
        assert before + seconds <= deadline <= after + seconds + late


def test_a_deadline_in_the_metadata_counts_like_one_in_the_body(grpc_robot: GrpcRobot, served: Served) -> None:
    before = time.monotonic()
    for metadata_ms, body_ms in (("5000", 60_000), ("60000", 5_000)):
        message = message_of(example_observation(deadline_ms=body_ms))
        grpc_robot.stub.Plan(message, metadata=(("x-deadline-ms", metadata_ms),))
    after = time.monotonic()
    assert all(before + 5 <= deadline <= after + 5 for deadline in served.policy.deadlines if deadline is not None)
    assert None not in served.policy.deadlines + served.policy.reserved


def test_the_shortest_of_several_deadlines_counts(grpc_robot: GrpcRobot, served: Served) -> None:
    before = time.monotonic()
    deadlines = (("x-deadline-ms", "60000"), ("x-deadline-ms", "5000"), ("x-deadline-ms", "70000"))
    grpc_robot.stub.Plan(message_of(example_observation()), metadata=deadlines)
    [deadline] = served.policy.deadlines
    assert deadline is not None
    assert before + 5 <= deadline <= time.monotonic() + 5


def test_a_request_refused_at_admission_is_not_parsed(grpc_robot: GrpcRobot, served: Served) -> None:
    served.policy.reserve_error = Overloaded("full", retry_after_s=2.5, predicted_s=0.75)
    error = raw_call(grpc_robot, PLAN, b"\xff\xff\xff")
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    facts = facts_of(error)
    assert (facts["retry_after_s"], facts["predicted_s"]) == ("2.5", "0.75")


def test_a_robot_that_cancels_cancels_its_plan(
    grpc_robot: GrpcRobot, served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    started, cancelled = threading.Event(), threading.Event()
    served.policy.hold, served.policy.started, served.policy.cancelled = True, started.set, cancelled.set
    call = grpc_robot.stub.Plan.future(message_of(example_observation()))
    assert started.wait(30)
    with caplog.at_level("INFO"):
        call.cancel()
        assert cancelled.wait(30)
        grpc_robot.stub.GetPolicy(pb.GetPolicyRequest())  # when this is answered, the call before it has ended
    assert "grpc: cancelled" in caplog.text


def test_a_robot_that_disconnects_cancels_its_plan(served: Served) -> None:
    started, cancelled = threading.Event(), threading.Event()
    served.policy.hold, served.policy.started, served.policy.cancelled = True, started.set, cancelled.set
    robot = GrpcRobot(served.address)
    call = robot.stub.Plan.future(message_of(example_observation()))
    assert started.wait(30)
    robot.close()
    assert cancelled.wait(30)
    assert call.done()


def raw_call(robot: GrpcRobot, method: str, raw: bytes) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        robot.channel.unary_unary(method)(raw, timeout=30)
    return caught.value


@pytest.mark.parametrize(
    "raw", [b"\xff\xff\xff", pb.PlanRequest(instruction="abc").SerializeToString().replace(b"abc", b"a\xffc")]
)
def test_a_malformed_message_is_a_bad_request(raw: bytes, grpc_robot: GrpcRobot) -> None:
    error = raw_call(grpc_robot, PLAN, raw)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    facts = facts_of(error)
    assert (facts["field"], facts["expected"]) == ("request", "a wavserve.v1.PlanRequest with text in UTF-8")
    assert facts["actual"] == f"{len(raw)} bytes that do not parse"


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (pb.PlanRequest(), "request"),
        (pb.PlanRequest(planner=pb.PlannerOptions()), "planner"),
        (pb.PlanRequest(images=[pb.Image(camera="wrist")]), "images.wrist"),
    ],
    ids=["request", "planner", "image"],
)
def test_fields_of_another_contract_are_refused(message: pb.PlanRequest, field: str, grpc_robot: GrpcRobot) -> None:
    target: Any = {"request": message, "planner": message.planner}.get(field) or message.images[0]
    target.MergeFromString(bytes([0xF8, 0x06, 0x01]))  # field 111, varint 1
    facts = facts_of(raw_call(grpc_robot, PLAN, message.SerializeToString()))
    assert (facts["field"], facts["actual"]) == (field, "unknown field numbers 111")


def test_grpc_itself_refuses_a_message_far_over_the_limit(grpc_robot: GrpcRobot, served: Served) -> None:
    error = raw_call(grpc_robot, PLAN, b"\0" * 800_001)
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "800001 vs. 800000" in error.details()


def test_an_overloaded_server_says_when_to_retry(grpc_robot: GrpcRobot, served: Served) -> None:
    served.policy.error = Overloaded("full", retry_after_s=2.5)
    error = raw_call(grpc_robot, PLAN, message_of(example_observation()).SerializeToString())
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in status.details)
    assert retry.retry_delay.ToMilliseconds() == 2500


def test_get_policy_refuses_an_unknown_policy(grpc_robot: GrpcRobot) -> None:
    reply = grpc_robot.call(grpc_robot.stub.GetPolicy, pb.GetPolicyRequest(policy="other"))
    assert (reply.code, reply.content["expected"], reply.content["actual"]) == ("NOT_FOUND", "example", "'other'")
