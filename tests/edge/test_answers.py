"""Both edges give the policy the same request and the robot the same answer, as the OpenAPI models document it."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, replace
from typing import Any

import httpx
import numpy as np
import pytest

from tests.edge.fakes import (
    ACTION_DIM,
    CHUNK,
    example_chunk_of,
    example_image,
    example_observation,
    example_pixels,
    example_spec,
)
from tests.edge.robots import ROBOTS, GrpcRobot, JsonRobot, Robot
from tests.edge.served import Served
from wavserve.core.normalise import statistics_digest
from wavserve.core.rtc import RtcRequest
from wavserve.core.types import PlanRequest
from wavserve.edge.http.answer_schemas import ChunkAnswer, PoliciesAnswer
from wavserve.pb import wavserve_pb2 as pb

FULL = example_observation(
    session_id="s1",
    sequence=2**63 - 1,
    control_step=24,
    executed_steps=8,
    policy="example",
    options={"mode": "published", "num_iterations": 1, "smoothing": 0.5, "per_view_noise": True},
    seed=0,
    deadline_ms=60_000,
    imagine_chunks=1,
    rtc=RtcRequest(
        mode="rtc_guided",
        prefix_attention_schedule="EXP",
        max_guidance_weight=4.5,
        execution_horizon=6,
        inference_delay=2,
        prev_chunk_left_over=np.linspace(-0.7, 0.7, 5 * ACTION_DIM, dtype=np.float32).reshape(5, ACTION_DIM),
    ),
)
# Protobuf's JSON differs from ours: 64-bit integers are text, and enums have names.
DEADLINES = {"NONE": "none", "MET": "met", "MET_DEGRADED": "met_degraded"}


def same(left: object, right: object) -> bool:
    """Whether the content is equal: numbers to float32, 64-bit integers also as text, matrices also flattened."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        left = [number for row in left for number in row] if left and isinstance(left[0], list) else left
        return len(left) == len(right) and all(map(same, left, right))
    if left == right or (left is None and right == "NaN"):  # protobuf has no null in a list
        return True
    if isinstance(left, str) and isinstance(right, str):
        return DEADLINES.get(right) == left or DEADLINES.get(left) == right or left.lower() == right.lower()
    return math.isclose(float(left), float(right), rel_tol=1e-6)  # type: ignore[arg-type]


def seen_by_policy(robot: Robot, served: Served) -> PlanRequest:
    served.policy.requests.clear()
    assert robot.plan(FULL).code in (200, "OK")
    (request,) = served.policy.requests
    return request


def test_every_edge_builds_the_same_request(served: Served) -> None:
    robots = [kind(served.address) for kind in ROBOTS]
    first, *others = [seen_by_policy(robot, served) for robot in robots]
    for robot in robots:
        robot.close()
    for other in others:
        np.testing.assert_equal(asdict(other), asdict(first))
    assert first.images["agentview"].tolist() == example_pixels(seed=9).tolist()
    assert (first.images["wrist"].shape, first.images["wrist"].dtype) == ((128, 128, 3), np.uint8)
    assert first.state.dtype == np.float32
    assert list(first.images) == ["agentview", "wrist"]
    assert first.options == FULL.options
    assert (first.session_id, first.sequence, first.control_step) == ("s1", 2**63 - 1, 24)
    assert (first.executed_steps, first.policy, first.seed, first.imagine_chunks) == (8, "example", 0, 1)
    assert first.rtc is not None
    assert (first.rtc.mode, first.rtc.prefix_attention_schedule, first.rtc.inference_delay) == ("rtc_guided", "EXP", 2)
    assert first.rtc.prev_chunk_left_over.tobytes() == FULL.rtc.prev_chunk_left_over.tobytes()


def test_omitted_fields_are_none(robot: Robot, served: Served) -> None:
    robot.plan(example_observation())
    (request,) = served.policy.requests
    assert (request.session_id, request.policy, request.seed, request.options) == (None, None, None, {})
    assert request.rtc is None
    assert robot.kind == "grpc" or served.policy.deadlines == [None]  # the gRPC robot has a timeout of its own


def test_the_answer_contains_the_plan(robot: Robot, served: Served) -> None:
    reply = robot.plan(replace(FULL, imagine_chunks=0)).content
    (request,) = served.policy.requests
    result = example_chunk_of(example_spec(), request)
    assert np.asarray(reply["actions"], np.float32).ravel().tolist() == result.actions.ravel().tolist()
    assert (reply["session_id"], int(reply["sequence"]), int(reply["first_control_step"])) == ("s1", 2**63 - 1, 24)
    assert (reply["horizon"], reply["action_dim"], int(reply["dt_ns"])) == (CHUNK, 7, 50_000_000)
    assert int(reply["valid_until_step"]) == 24 + CHUNK
    assert int(reply["captured_mono_ns"]) == 1234
    assert 0 < int(reply["server_recv_ns"]) <= int(reply["server_send_ns"]) <= time.monotonic_ns()
    assert reply["warnings"] == ["untrained weights: never run these actions on a robot"]
    assert reply["imagined"] == []
    receipt = reply["receipt"]
    assert (int(receipt["seed"]), receipt["iterations_done"], receipt["slack_ms"]) == (0, 2, 125.0)
    assert receipt["stage_ms"] == {"imagine": 500.0, "score": 250.0}
    assert receipt["planner"]["num_video_samples"] == 6
    assert receipt["iterations"][1]["value_elites"] == [7, 2, 11]
    assert (receipt["rtc"]["execution_horizon"], receipt["rtc"]["inference_delay"], receipt["seam_jump"]) == (
        8,
        2,
        0.25,
    )
    assert reply["frozen_prefix_steps"] == 2


def test_both_edges_answer_the_same(served: Served) -> None:
    http, rpc = JsonRobot(served.address), GrpcRobot(served.address)
    answers: list[dict[str, Any]] = [http.plan(FULL).content, rpc.plan(FULL).content]
    http.close()
    rpc.close()
    for answer in answers:
        assert answer.pop("server_recv_ns")
        assert answer.pop("server_send_ns")
    assert answers[1].pop("epoch") == 0  # of Control only
    assert same(answers[0], answers[1])
    assert answers[0]["chunk_id"] == answers[1]["chunk_id"]


def test_json_fields_are_named_as_in_protobuf(served: Served) -> None:
    http = JsonRobot(served.address)
    reply = http.plan(FULL).content
    policies = http.client.get("/v1/policies").json()
    http.close()
    ChunkAnswer.model_validate(reply)
    PoliciesAnswer.model_validate(policies)
    assert reply.keys() == {field.name for field in pb.ActionChunk.DESCRIPTOR.fields} - {"epoch"}
    assert reply["receipt"].keys() == {field.name for field in pb.Receipt.DESCRIPTOR.fields}
    assert policies["policies"][0].keys() == {field.name for field in pb.PolicyInfo.DESCRIPTOR.fields}
    assert [entry["camera"] for entry in reply["imagined"]] == ["agentview", "wrist"]
    assert [(frame["encoding"], frame["height"]) for frame in reply["imagined"][0]["frames"]] == [("png", 16)] * 2


def test_both_edges_describe_the_policy_alike(served: Served, grpc_robot: GrpcRobot) -> None:
    over_grpc = grpc_robot.call(grpc_robot.stub.GetPolicy, pb.GetPolicyRequest()).content
    over_http = httpx.get(f"{served.address.http}/v1/policies").json()["policies"]
    assert over_grpc["rtc"].pop("inference_delay") == 0  # of requests only
    assert same(over_http, [over_grpc])
    assert over_http[0]["max_message_bytes"] == 400_000
    assert over_http[0]["bounds"]["max_imagined_chunks"] == 4
    camera = {"name": "wrist", "height": 128, "width": 128, "resize": "exact", "orientation": "as_captured"}
    assert over_http[0]["cameras"][1] == camera


def test_a_policy_tells_what_it_declares_for_motion(served: Served) -> None:
    (told,) = httpx.get(f"{served.address.http}/v1/policies").json()["policies"]
    spec = example_spec()
    assert (told["embodiment"], told["action_kind"], told["max_trained_delay"]) == ("example_arm", "absolute", 3)
    assert told["rtc"] == asdict(spec.rtc)
    assert told["rtc_modes"] == ["off", "rtc_guided", "rtc_trained"]
    assert told["state"]["statistics_digest"] == statistics_digest(spec.state.norm)
    assert told["state"]["limits"]["velocity"] == []
    assert told["action"]["limits"] == {
        "position_low": [None, *[-2.0] * 6],
        "position_high": [None, *[2.0] * 6],
        "velocity": [*[60.0] * 6, None],
        "jerk": [],
        "min_horizon": 4,
    }
    assert told["action"]["hold"] == [*["zero"] * 6, "last"]
    assert told["state"]["hold"] == []


def test_a_deadline_counts_from_receipt(robot: Robot, served: Served) -> None:
    before = time.monotonic()
    robot.plan(example_observation(deadline_ms=2_000))
    (deadline,) = served.policy.deadlines
    assert deadline is not None
    assert before + 2 <= deadline <= time.monotonic() + 2


def test_reset_reaches_the_policy(robot: Robot, served: Served) -> None:
    assert robot.reset("s1").content == {"session_id": "s1"}
    assert served.policy.resets == ["s1"]


@pytest.mark.parametrize("resize", ["bilinear", "bicubic", "area"])
def test_a_declared_filter_resizes_other_sizes(resize: Any, robot: Robot, served: Served) -> None:
    served.policy.spec = example_spec(resize)
    pictures = example_image("agentview", "raw_rgb8", (220, 300)), example_image("wrist", "png", (64, 96))
    assert robot.plan(example_observation(images=pictures)).code in (200, "OK")
    (request,) = served.policy.requests
    assert {image.shape for image in request.images.values()} == {(128, 128, 3)}


def test_a_server_that_is_not_ready_refuses_requests(robot: Robot, served: Served) -> None:
    served.policy.ready = False
    for reply in (robot.plan(example_observation()), robot.reset("s")):
        assert (reply.name, reply.code) == ("not-ready", "UNAVAILABLE" if robot.kind == "grpc" else 503)
        assert reply.content["retryable"] in (True, "true")
    assert served.policy.requests == []


def test_an_unexpected_error_is_not_disclosed(robot: Robot, served: Served, caplog: pytest.LogCaptureFixture) -> None:
    served.policy.error = ZeroDivisionError("/secret/path")
    reply = robot.plan(example_observation())
    assert (reply.name, reply.code) == ("internal", "INTERNAL" if robot.kind == "grpc" else 500)
    assert "secret" not in str(reply.content)
    assert "ZeroDivision" not in str(reply.content)
    error_id = reply.content["error_id" if robot.kind == "grpc" else "instance"]
    (record,) = [record for record in caplog.records if error_id in record.getMessage()]
    assert record.exc_info is not None
    assert record.exc_info[1] is served.policy.error


def test_every_request_is_counted(robot: Robot, served: Served) -> None:
    edge = "grpc" if robot.kind == "grpc" else "http"

    def count(outcome: str) -> float:
        labels = {"edge": edge, "outcome": outcome}
        return served.metrics.registry.get_sample_value("wavserve_requests_total", labels) or 0.0

    before = {outcome: count(outcome) for outcome in ("ok", "unknown-policy")}
    robot.plan(example_observation())
    robot.plan(example_observation(policy="other"))
    robot.reset("s")  # when this is answered, the requests before it are counted
    assert count("ok") >= before["ok"] + 1
    assert count("unknown-policy") == before["unknown-policy"] + 1
