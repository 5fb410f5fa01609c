"""Real-time chunking through the whole service, with the models in its process and in a real Triton."""

from __future__ import annotations

import concurrent.futures
from typing import Any

import httpx
import numpy as np
import pytest

from tests.service.rig import Server, observation, post
from tests.service.test_control import Robot, seen
from wavserve.clients.plan_client import PlanClient
from wavserve.core.control import StreamError
from wavserve.core.messages import ActionChunk, Observation
from wavserve.core.rtc import RtcRequest

EXECUTED, DELAY = 8, 3
NO_PLANNING = {"mode": "off"}


def next_observation(chunk: ActionChunk, seed: int = 9, sequence: int = 1, **rtc: Any) -> Observation:
    """The observation after EXECUTED steps of a chunk, with the rest of it as the left-over."""
    wish = RtcRequest(inference_delay=DELAY, prev_chunk_left_over=chunk.actions[EXECUTED:], **rtc)
    return observation(
        1,
        seed=seed,
        session_id=chunk.session_id,
        sequence=sequence,
        executed_steps=EXECUTED,
        options=NO_PLANNING,
        rtc=wish,
    )


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_chunk_goes_on_where_the_robot_is(client: PlanClient, seed: int) -> None:
    begun = client.plan(observation(0, options=NO_PLANNING, seed=seed))
    free = client.plan(next_observation(begun, seed + 20, mode="off"))
    begun = client.plan(observation(0, options=NO_PLANNING, seed=seed))
    guided = client.plan(next_observation(begun, seed + 20, mode="rtc_guided", execution_horizon=8))
    left_over = begun.actions[EXECUTED:]
    assert guided.actions[:DELAY].tobytes() == left_over[:DELAY].tobytes()
    assert (guided.frozen_prefix_steps, free.frozen_prefix_steps) == (DELAY, 0)
    assert guided.receipt.rtc is not None
    assert (guided.receipt.rtc.mode, guided.receipt.rtc.max_guidance_weight) == ("rtc_guided", 10.0)
    assert guided.receipt.seam_jump is not None
    assert free.receipt.seam_jump is not None
    assert guided.receipt.seam_jump < free.receipt.seam_jump


def test_both_edges_continue_alike(server: Server, client: PlanClient) -> None:
    begun = client.plan(observation(0, options=NO_PLANNING))
    over_grpc = client.plan(next_observation(begun, mode="rtc_guided"))
    begun = client.plan(observation(0, options=NO_PLANNING))
    over_http = post(server, next_observation(begun, mode="rtc_guided")).json()
    actions = np.array(over_http["actions"], np.float32)
    np.testing.assert_array_equal(actions, over_grpc.actions)
    assert actions[:DELAY].tobytes() == begun.actions[EXECUTED : EXECUTED + DELAY].tobytes()
    assert over_http["frozen_prefix_steps"] == DELAY
    assert over_http["receipt"]["digests"]["left_over"] == over_grpc.receipt.digests["left_over"]
    assert 'wavserve_seam_jump_count{mode="rtc_guided"}' in httpx.get(f"{server.http}/metrics").text


def test_robots_with_and_without_a_left_over_at_once_get_the_same_plans_as_alone(client: PlanClient) -> None:
    def begun(seed: int) -> ActionChunk:
        return client.plan(observation(0, options=NO_PLANNING, seed=seed))

    def sent(chunk: ActionChunk, robot: int) -> Observation:
        return next_observation(chunk, robot + 40, mode=("off", "rtc_guided")[robot % 2])

    chunks = [begun(robot) for robot in range(6)]
    with concurrent.futures.ThreadPoolExecutor(6) as robots:
        together = list(robots.map(client.plan, map(sent, chunks, range(6))))
    for robot, one in enumerate(together):
        alone = client.plan(sent(begun(robot), robot))
        np.testing.assert_allclose(one.actions, alone.actions, atol=1e-4)


def test_a_stream_continues_its_chunks(server: Server) -> None:
    robot = Robot(server, "continuing arm")
    welcome = robot.receive()
    robot.send(seen(0, welcome.epoch, options=NO_PLANNING))
    begun = robot.receive()
    left_over = begun.actions[EXECUTED:]
    wish = RtcRequest(mode="rtc_guided", inference_delay=DELAY, prev_chunk_left_over=left_over)
    robot.send(seen(1, welcome.epoch, options=NO_PLANNING, control_step=EXECUTED, executed_steps=EXECUTED, rtc=wish))
    chunk = robot.receive()
    assert isinstance(chunk, ActionChunk)
    assert chunk.actions[:DELAY].tobytes() == left_over[:DELAY].tobytes()
    assert chunk.frozen_prefix_steps == DELAY
    robot.send(seen(2, welcome.epoch, options=NO_PLANNING, executed_steps=2, rtc=wish))
    refused = robot.receive()
    assert isinstance(refused, StreamError)
    assert (refused.field, refused.fatal) == ("rtc.inference_delay", False)
    robot.close()
