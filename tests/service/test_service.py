"""The whole service on real sockets: both edges, sessions, errors, records."""

from __future__ import annotations

import concurrent.futures
import json
import os
import subprocess
import sys
import time
from dataclasses import replace

import grpc
import httpx
import numpy as np
import pytest
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.service.rig import Server, observation, plan_command, post
from wavserve.clients.plan_client import PlanClient
from wavserve.core.errors import InvalidRequest, SequenceConflict, UnknownPolicy, UnknownSession


def test_both_edges_give_the_same_actions(server: Server, client: PlanClient) -> None:
    over_grpc = client.plan(observation())
    over_http = post(server, observation()).json()
    np.testing.assert_array_equal(np.array(over_http["actions"], np.float32), over_grpc.actions)
    assert over_grpc.actions.shape == (16, 7)
    assert np.isfinite(over_grpc.actions).all()
    assert over_http["receipt"]["policy_digest"] == over_grpc.receipt.policy_digest
    assert over_http["receipt"]["untrained"] is True
    assert over_grpc.receipt.iterations_done == 3


def test_the_server_describes_itself(server: Server, client: PlanClient) -> None:
    policy = client.policy()
    listed = httpx.get(f"{server.http}/v1/policies").json()["policies"][0]
    assert (policy.name, [camera.name for camera in policy.cameras]) == ("tiny", ["agentview", "wrist"])
    assert listed["digest"] == policy.digest == client.plan(observation()).receipt.policy_digest
    assert httpx.get(f"{server.http}/healthz").status_code == 200
    assert "/v1/plan" in httpx.get(f"{server.http}/openapi.json").json()["paths"]
    assert httpx.get(f"{server.http}/docs").status_code == 200
    for _ in range(50):  # a model in a process of its own reports its arena once a second
        metrics = httpx.get(f"{server.http}/metrics").text
        if "wavserve_arena_slots_used 0.0" in metrics:
            break
        time.sleep(0.1)
    for name in ("wavserve_requests_total", "wavserve_arena_slots_used 0.0", 'wavserve_call_seconds_bucket{le="'):
        assert name in metrics


def test_reflection_lists_the_service(server: Server) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        services = ProtoReflectionDescriptorDatabase(channel).get_services()
    assert "wavserve.v1.PlanService" in services or any(name.endswith("PlanService") for name in services)
    assert "grpc.health.v1.Health" in services


def test_an_episode_advances_the_frame_memory_and_a_reset_clears_it(client: PlanClient) -> None:
    chunk = client.plan(observation(0))
    memories = {chunk.receipt.digests["memory"]}
    for frame in range(1, 4):
        sent = observation(frame, session_id=chunk.session_id, sequence=frame, executed_steps=8)
        chunk = client.plan(sent)
        assert chunk.first_control_step == 8 * frame
        memories.add(chunk.receipt.digests["memory"])
    assert len(memories) == 4
    client.reset(chunk.session_id)
    fresh = client.plan(replace(sent, sequence=9))
    np.testing.assert_array_equal(fresh.actions, client.plan(replace(sent, session_id=None, sequence=9)).actions)


def test_eight_robots_at_once_get_the_same_plans_as_alone(client: PlanClient) -> None:
    sent = [observation(frame % 6, seed=frame) for frame in range(8)]
    with concurrent.futures.ThreadPoolExecutor(8) as robots:
        together = list(robots.map(client.plan, sent))
    for one, request in zip(together, sent, strict=True):
        alone = client.plan(request)
        for ours, theirs in zip(alone.receipt.iterations, one.receipt.iterations, strict=True):
            assert set(ours.video_elites) == set(theirs.video_elites)
            assert set(ours.value_elites) == set(theirs.value_elites)
        np.testing.assert_allclose(one.actions, alone.actions, atol=1e-5)


@pytest.mark.parametrize("edge", ["http", "grpc"])
def test_sequence_and_session_rules_hold_on_both_edges(server: Server, client: PlanClient, edge: str) -> None:
    first = client.plan(observation(0))
    second = observation(1, session_id=first.session_id, sequence=5, executed_steps=8)
    answered = client.plan(second)
    cases = [
        (replace(second, sequence=4), SequenceConflict, 409, "sequence", "more than 5"),
        (replace(second, instruction="something else"), SequenceConflict, 409, "sequence", "a number above"),
        (replace(second, session_id="nobody"), UnknownSession, 404, "session_id", "a session of this service"),
        (replace(second, policy="other"), UnknownPolicy, 404, "policy", "tiny"),
        (
            replace(second, sequence=6, options={"num_video_samples": 2}),
            InvalidRequest,
            400,
            "planner.",
            "at least 2 elites",
        ),
    ]
    for sent, error, status, field, expected in cases:
        if edge == "http":
            response = post(server, sent)
            problem = response.json()
            assert response.status_code == status
            assert response.headers["content-type"] == "application/problem+json"
            assert problem["field"].startswith(field)
            assert expected in problem["expected"]
            assert problem["actual"]
        else:
            with pytest.raises(error) as refused:
                client.plan(sent)
            assert refused.value.field.startswith(field)
            assert expected in refused.value.expected
    again = client.plan(second)  # a retry: refused requests have not changed the memory
    np.testing.assert_array_equal(again.actions, answered.actions)
    assert again.receipt.digests == answered.receipt.digests


def test_imagined_frames_are_png_images(client: PlanClient) -> None:
    chunk = client.plan(observation(imagine_chunks=2))
    assert {camera: len(frames) for camera, frames in chunk.imagined.items()} == {"agentview": 18, "wrist": 18}
    assert all(frame.data.startswith(b"\x89PNG") for frames in chunk.imagined.values() for frame in frames)


def test_a_recorded_plan_replays_to_the_same_actions(server: Server, client: PlanClient) -> None:
    first = client.plan(observation(0, seed=None))
    later = client.plan(observation(1, seed=None, session_id=first.session_id, sequence=1, executed_steps=8))
    command = [sys.executable, "-m", "wavserve.cli", "plan", "--bundle", str(server.bundle), "--replay"]
    # uncompiled, as the server; bfloat16 must have no effect, because the record says float32
    environ = {**os.environ, "WAVSERVE_BACKEND__COMPILE": "off", "WAVSERVE_BACKEND__DTYPE": "bfloat16"}
    for chunk in (first, later):
        record = server.records / f"{chunk.session_id}-{chunk.sequence:08d}.safetensors"
        for _ in range(100):  # records are written after the answer
            if record.exists():
                break
            time.sleep(0.1)
        replayed = subprocess.run(
            [*command, str(record)], capture_output=True, text=True, timeout=300, check=False, env=environ
        )
        assert replayed.returncode == 0, replayed.stderr
        assert "the same chunk" in replayed.stdout  # to 1e-5, because the slices may differ


def test_the_plan_command_plans_on_a_server(server: Server) -> None:
    command = plan_command(server, "--seed=7", "--json")
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    chunk = json.loads(done.stdout)
    assert np.array(chunk["actions"]).shape == (16, 7)
