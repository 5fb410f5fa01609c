"""Real-time chunking at both edges: every wrong value is refused, and the refusal names field, expected and actual."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest

from tests.edge.bodies import GOOD
from tests.edge.fakes import ACTION_DIM, CHUNK, example_observation, example_spec
from tests.edge.robots import GrpcRobot, Robot, reply_of
from tests.edge.served import Served
from wavserve.core.errors import InvalidRequest
from wavserve.core.rtc import RtcRequest
from wavserve.core.rtc_options import merge_rtc
from wavserve.pb import wavserve_pb2 as pb
from wavserve.wire import requests

LEFT_OVER = np.zeros((6, ACTION_DIM), np.float32)
NOT_FINITE = LEFT_OVER.copy()
NOT_FINITE[2, 3] = np.nan
GOOD_RTC = RtcRequest(mode="rtc_guided", inference_delay=2, prev_chunk_left_over=LEFT_OVER)
WRONG: dict[str, tuple[dict[str, Any], int, tuple[str, str, str]]] = {
    "weight": ({"max_guidance_weight": -1.0}, 8, ("max_guidance_weight", "0 to 1000", "-1.0")),
    "weight too large": ({"max_guidance_weight": 1001.0}, 8, ("max_guidance_weight", "0 to 1000", "1001.0")),
    "weight not finite": ({"max_guidance_weight": float("nan")}, 8, ("max_guidance_weight", "0 to 1000", "nan")),
    "horizon": ({"execution_horizon": 0}, 8, ("execution_horizon", "1 to 16, the horizon", "0")),
    "horizon too long": ({"execution_horizon": CHUNK + 1}, 8, ("execution_horizon", "1 to 16, the horizon", "17")),
    "delay beyond the left-over": (
        {"inference_delay": 7},
        8,
        ("inference_delay", "0 to 6, the actions of prev_chunk_left_over", "7"),
    ),
    "delay without a left-over": (
        {"prev_chunk_left_over": LEFT_OVER[:0]},
        8,
        ("inference_delay", "0 to 0, the actions of prev_chunk_left_over", "2"),
    ),
    "delay beyond the executed steps": ({}, 1, ("inference_delay", "at most 1, the executed steps", "2")),
    "executed beyond the horizon": (
        {},
        15,
        ("executed_steps", "at most 14, the horizon minus the delay, or no prev_chunk_left_over", "15"),
    ),
    "trained for a shorter delay": (
        {"mode": "rtc_trained", "inference_delay": 4},
        8,
        ("inference_delay", "at most 3, the delay the policy was trained for", "4"),
    ),
    "left-over too long": (
        {"prev_chunk_left_over": np.zeros((CHUNK + 1, ACTION_DIM), np.float32)},
        8,
        ("prev_chunk_left_over", "at most 16 actions, the horizon", "17 actions"),
    ),
    "left-over of another dimension": (
        {"prev_chunk_left_over": np.zeros((6, 5), np.float32)},
        8,
        ("prev_chunk_left_over", "actions of 7 numbers", "5 numbers"),
    ),
    "left-over not finite": (
        {"prev_chunk_left_over": NOT_FINITE},
        8,
        ("prev_chunk_left_over[2][3]", "a finite float32", "nan"),
    ),
}


def of_rtc(field: str) -> str:
    return field if field == "executed_steps" else f"rtc.{field}"


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_value_is_refused(
    wrong: tuple[dict[str, Any], int, tuple[str, str, str]], robot: Robot, served: Served
) -> None:
    changes, executed, (field, expected, actual) = wrong
    reply = robot.plan(example_observation(rtc=replace(GOOD_RTC, **changes), executed_steps=executed))
    assert reply.code in (400, "INVALID_ARGUMENT")
    facts = reply.content
    assert (facts["field"], facts["expected"], facts["actual"]) == (of_rtc(field), expected, actual)
    assert served.policy.requests == []


def test_a_good_one_reaches_the_policy(robot: Robot, served: Served) -> None:
    assert robot.plan(example_observation(rtc=GOOD_RTC, executed_steps=8)).code in (200, "OK")
    (request,) = served.policy.requests
    assert request.rtc is not None
    assert request.rtc.inference_delay == 2


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("mode", "guided", "one of off, rtc_guided, rtc_trained"),
        ("prefix_attention_schedule", "linear", "one of LINEAR, EXP, ONES, ZEROS"),
    ],
)
def test_an_unknown_name_is_refused_in_json(field: str, value: str, expected: str, client: httpx.Client) -> None:
    reply = reply_of(client.post("/v1/plan", json=GOOD | {"rtc": {field: value}}))
    facts = (reply.content["field"], reply.content["expected"], reply.content["actual"])
    assert facts == (f"rtc.{field}", expected, repr(value))


@pytest.mark.parametrize(
    ("field", "actual"), [("mode", "'mode 9'"), ("prefix_attention_schedule", "'schedule 9'")], ids=str
)
def test_an_unknown_number_is_refused_in_protobuf(field: str, actual: str, grpc_robot: GrpcRobot) -> None:
    message = requests.plan_request(example_observation(rtc=GOOD_RTC, executed_steps=8))
    setattr(message.rtc, field, 9)
    reply = grpc_robot.call(grpc_robot.stub.Plan, message)
    assert (reply.content["field"], reply.content["actual"]) == (f"rtc.{field}", actual)


@pytest.mark.parametrize(
    ("rtc", "field", "expected"),
    [
        ({"prev_chunk_left_over": [[0.0] * 7, [0.0] * 6]}, "rtc.prev_chunk_left_over[1]", "7 numbers"),
        ({"prev_chunk_left_over": [[1e39] * 7]}, "rtc.prev_chunk_left_over[0][0]", "a finite float32"),
        ({"prev_chunk_left_over": [[]]}, "rtc.prev_chunk_left_over", "actions of 7 numbers"),
        ({"prev_chunk_left_over": [["a"] * 7]}, "rtc.prev_chunk_left_over[0][0]", "a valid number"),
        ({"inference_delay": 1.5}, "rtc.inference_delay", "a valid integer"),
        ({"inference_delay": -1}, "rtc.inference_delay", "0 to 0"),
        ({"delay": 1}, "rtc.delay", "only fields of the contract"),
    ],
)
def test_a_malformed_one_is_refused_in_json(
    rtc: dict[str, Any], field: str, expected: str, client: httpx.Client
) -> None:
    reply = reply_of(client.post("/v1/plan", json=GOOD | {"rtc": rtc}))
    assert (reply.code, reply.content["field"]) == (400, field)
    assert reply.content["expected"].startswith(expected)


@pytest.mark.parametrize(
    ("tensor", "field"),
    [
        (pb.Tensor(shape=[2, 7], data=bytes(4)), "rtc.prev_chunk_left_over.data"),
        (pb.Tensor(shape=[7], data=bytes(28)), "rtc.prev_chunk_left_over.shape"),
        (pb.Tensor(shape=[2**32 - 1, 2**32 - 1]), "rtc.prev_chunk_left_over.data"),
        (pb.Tensor(shape=[2**32 - 1, 0]), "rtc.prev_chunk_left_over"),
        (pb.Tensor(data=bytes(28)), "rtc.prev_chunk_left_over.shape"),
    ],
)
def test_a_malformed_tensor_is_refused_in_protobuf(tensor: pb.Tensor, field: str, grpc_robot: GrpcRobot) -> None:
    message = requests.plan_request(example_observation())
    message.rtc.prev_chunk_left_over.CopyFrom(tensor)
    reply = grpc_robot.call(grpc_robot.stub.Plan, message)
    assert (reply.code, reply.content["field"]) == ("INVALID_ARGUMENT", field)


def test_trained_continuation_is_refused_by_a_policy_without_it() -> None:
    spec = replace(example_spec(), max_trained_delay=0)
    with pytest.raises(InvalidRequest) as refused:
        merge_rtc(spec, RtcRequest(mode="rtc_trained"), 0)
    assert refused.value.field == "rtc.mode"
    assert "max_trained_delay is 0" in refused.value.expected
