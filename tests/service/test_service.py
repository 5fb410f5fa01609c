"""The whole service on real sockets: both edges, sessions, errors, records, shutdown."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
import torch
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.service.rig import Server, form, observation, post, start
from wavserve.clients.async_client import AsyncPlanClient
from wavserve.clients.plan_client import PlanClient
from wavserve.core.errors import (
    DeadlineExceeded,
    InvalidRequest,
    NotReady,
    Overloaded,
    SequenceConflict,
    UnknownPolicy,
    UnknownSession,
)
from wavserve.core.messages import Observation
from wavserve.core.types import DeadlineResult


def test_both_edges_give_the_same_actions(server: Server, client: PlanClient) -> None:
    over_grpc = client.plan(observation())
    over_http = post(server, observation()).json()
    np.testing.assert_array_equal(np.array(over_http["actions"], np.float32), over_grpc.actions)
    assert over_grpc.actions.shape == (16, 7)
    assert np.isfinite(over_grpc.actions).all()
    assert over_http["receipt"]["policy_digest"] == over_grpc.receipt.policy_digest
    assert over_http["receipt"]["untrained"] is True
    assert over_grpc.receipt.iterations_done == 3


def test_what_the_server_says_of_itself(server: Server, client: PlanClient) -> None:
    policy = client.policy()
    told = httpx.get(f"{server.http}/v1/policies").json()["policies"][0]
    assert (policy.name, [camera.name for camera in policy.cameras]) == ("tiny", ["agentview", "wrist"])
    assert told["digest"] == policy.digest == client.plan(observation()).receipt.policy_digest
    assert httpx.get(f"{server.http}/healthz").status_code == 200
    assert "/v1/plan" in httpx.get(f"{server.http}/openapi.json").json()["paths"]
    assert httpx.get(f"{server.http}/docs").status_code == 200
    for _ in range(50):  # a model in a process of its own tells of its arena once a second
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


def test_an_episode_as_a_robot_runs_it(client: PlanClient) -> None:
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


def test_eight_robots_at_once_get_what_each_gets_alone(client: PlanClient) -> None:
    sent = [observation(frame % 6, seed=frame) for frame in range(8)]
    with concurrent.futures.ThreadPoolExecutor(8) as robots:
        together = list(robots.map(client.plan, sent))
    for one, asked in zip(together, sent, strict=True):
        alone = client.plan(asked)
        for ours, theirs in zip(alone.receipt.iterations, one.receipt.iterations, strict=True):
            assert set(ours.video_elites) == set(theirs.video_elites)
            assert set(ours.value_elites) == set(theirs.value_elites)
        np.testing.assert_allclose(one.actions, alone.actions, atol=1e-5)


@pytest.mark.parametrize("edge", ["http", "grpc"])
def test_sequence_and_session_rules_hold_through_both_edges(server: Server, client: PlanClient, edge: str) -> None:
    first = client.plan(observation(0))
    second = observation(1, session_id=first.session_id, sequence=5, executed_steps=8)
    answered = client.plan(second)
    cases = [
        (replace(second, sequence=4), SequenceConflict, 409, "sequence", "more than 5"),
        (replace(second, instruction="something else"), SequenceConflict, 409, "sequence", "a new number"),
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
    for sent, kind, status, field, expected in cases:
        if edge == "http":
            response = post(server, sent)
            problem = response.json()
            assert response.status_code == status
            assert response.headers["content-type"] == "application/problem+json"
            assert problem["field"].startswith(field)
            assert expected in problem["expected"]
            assert problem["actual"]
        else:
            with pytest.raises(kind) as refused:
                client.plan(sent)
            assert refused.value.field.startswith(field)
            assert expected in refused.value.expected
    again = client.plan(second)  # a retry: the memory is as it was
    np.testing.assert_array_equal(again.actions, answered.actions)
    assert again.receipt.digests == answered.receipt.digests


def test_a_deadline_is_met_by_doing_less_or_not_at_all(server: Server, client: PlanClient) -> None:
    """Many iterations under a deadline: fewer are done. No time at all: an error, and the session is as it was."""
    options = {"num_iterations": 10, "num_video_samples": 30}
    whole = client.plan(observation(options=options))
    total_ms = 1000 * whole.receipt.stage_s["total"]
    hurried = None
    for _ in range(5):  # a machine that stalls may make any single plan late, and then it is refused
        with contextlib.suppress(DeadlineExceeded):
            hurried = client.plan(observation(options=options, deadline_ms=int(total_ms / 4)))
            break
    assert hurried is not None
    assert hurried.receipt.deadline is DeadlineResult.MET_DEGRADED
    assert hurried.receipt.iterations_done < 10
    assert post(server, observation(deadline_ms=1)).status_code == 504
    assert 'wavserve_plans_total{deadline="missed"}' in httpx.get(f"{server.http}/metrics").text


def test_imagined_frames_come_as_pictures(client: PlanClient) -> None:
    chunk = client.plan(observation(imagine_chunks=2))
    assert {camera: len(frames) for camera, frames in chunk.imagined.items()} == {"agentview": 18, "wrist": 18}
    assert all(frame.data.startswith(b"\x89PNG") for frames in chunk.imagined.values() for frame in frames)


def test_a_recorded_plan_replays_to_the_same_actions(server: Server, client: PlanClient) -> None:
    first = client.plan(observation(0, seed=None))
    later = client.plan(observation(1, seed=None, session_id=first.session_id, sequence=1, executed_steps=8))
    command = [sys.executable, "-m", "wavserve.cli", "plan", "--bundle", str(server.bundle), "--replay"]
    # uncompiled, as the server; and in float32, for the record says so
    environ = {**os.environ, "WAVSERVE_BACKEND__COMPILE": "off", "WAVSERVE_BACKEND__DTYPE": "bfloat16"}
    for chunk in (first, later):
        record = server.records / f"{chunk.session_id}-{chunk.sequence:08d}.safetensors"
        for _ in range(100):  # records are written behind the answer
            if record.exists():
                break
            time.sleep(0.1)
        replayed = subprocess.run(
            [*command, str(record)], capture_output=True, text=True, timeout=120, check=False, env=environ
        )
        assert replayed.returncode == 0, replayed.stderr
        assert "the same chunk" in replayed.stdout  # to 1e-5: samples may have travelled in other slices


def test_the_client_command_plans(server: Server) -> None:
    from tests.service.rig import FRAMES, episode

    seen = episode()["frames"][0]
    command = [sys.executable, "-m", "wavserve.cli", "plan", "--server", server.grpc, "--seed", "7", "--json"]
    for camera in ("agentview", "wrist"):
        command += ["--image", f"{camera}={FRAMES / seen[camera]}"]
    command += ["--state=" + ",".join(map(str, seen["state"])), "--instruction", episode()["instruction"]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert np.array(told["actions"]).shape == (16, 7)


def test_a_signal_drains(tmp_path: Path, server: Server) -> None:
    """Plans under way are answered, then the process ends by itself; a second start on its port is told so."""
    running = start(tmp_path, server.backend, "--bundle", str(server.bundle), "--set", "limits.drain_s=60")
    options = {"num_iterations": 10, "num_video_samples": 24}
    with concurrent.futures.ThreadPoolExecutor(2) as pool, PlanClient(running.grpc) as client:
        answers = [pool.submit(client.plan, observation(seed=seed, options=options)) for seed in range(2)]
        while "wavserve_plans_in_flight 2.0" not in httpx.get(f"{running.http}/metrics").text:
            assert not any(answer.done() for answer in answers)
        assert running.stop() == 0
        assert [len(answer.result().receipt.iterations) for answer in answers] == [10, 10]
        with pytest.raises(NotReady):
            client.policy()


def test_a_port_in_use_is_told_at_once(server: Server, tmp_path: Path) -> None:
    command = serving(server)
    for key, address in (("http.port", server.http), ("grpc.port", server.grpc)):
        ports = {"http.port": "0", "grpc.port": "0", key: address.rpartition(":")[2]}
        flags = [flag for name, port in ports.items() for flag in ("--set", f"{name}={port}")]
        failed = subprocess.run(
            [*command, *flags], capture_output=True, text=True, timeout=120, cwd=tmp_path, check=False
        )
        assert failed.returncode == 1
        assert f"{key}: cannot listen on" in failed.stderr
        assert "Traceback" not in failed.stderr


def test_after_a_busy_moment_plans_iterate_again(client: PlanClient) -> None:
    """A burst makes every plan slow; robots with deadlines must not be left without planning for good."""
    alone = client.plan(observation())
    deadline_ms = int(4000 * alone.receipt.stage_s["total"])
    with concurrent.futures.ThreadPoolExecutor(12) as robots:
        list(robots.map(client.plan, [observation(seed=seed) for seed in range(12)]))
    for _ in range(30):
        with contextlib.suppress(DeadlineExceeded, Overloaded):
            if client.plan(observation(deadline_ms=deadline_ms)).receipt.deadline is DeadlineResult.MET:
                return
        time.sleep(1.0)
    raise AssertionError("planning never came back")


LONG = {"num_iterations": 10, "num_video_samples": 64, "num_value_samples": 16}


@pytest.mark.parametrize("edge", ["http", "grpc"])
def test_a_robot_that_hangs_up_leaves_no_plan_and_no_slot(server: Server, edge: str) -> None:
    """Long before the slots' lease ends."""

    async def ask() -> None:
        async with AsyncPlanClient(server.grpc) as robot:
            await robot.plan(observation(options=LONG))

    async def main() -> None:
        await until(lambda: not any(gauges(server).values()))  # Triton's slots are looked at now and then
        asking = asyncio.ensure_future(ask() if edge == "grpc" else post_async(server, observation(options=LONG)))
        await until(lambda: gauges(server)["plans_in_flight"] == 1 and gauges(server)["arena_slots_used"] > 0)
        asking.cancel()
        await until(lambda: not any(gauges(server).values()))

    asyncio.run(main())


async def post_async(server: Server, sent: Observation) -> None:
    async with httpx.AsyncClient(timeout=60) as robot:
        await robot.post(f"{server.http}/v1/plan", files=form(sent))


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(1000):
        if await asyncio.to_thread(holds):
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it never came to that")


def gauges(server: Server) -> dict[str, float]:
    """What is under way, and what it holds."""
    text = httpx.get(f"{server.http}/metrics", timeout=30).text
    names = ("plans_in_flight", "queue_depth", "arena_slots_used", "remaining_device_seconds")
    return {name: float(re.search(rf"^wavserve_{name} (.*)$", text, re.MULTILINE)[1]) for name in names}


def test_an_upload_that_never_ends_does_not_keep_the_service_up(tmp_path: Path, server: Server) -> None:
    running = start(tmp_path, server.backend, "--bundle", str(server.bundle))
    host, port = running.http.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as upload:
        upload.sendall(b"POST /v1/plan HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        assert running.stop() == 0


def test_plans_that_outlast_the_drain_are_refused_properly(tmp_path: Path, server: Server) -> None:
    running = start(tmp_path, server.backend, "--bundle", str(server.bundle), "--set", "limits.drain_s=0.2")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(post, running, observation(options=LONG))
        while "wavserve_plans_in_flight 1.0" not in httpx.get(f"{running.http}/metrics").text:
            assert not answer.done()
        assert running.stop() == 0
        response = answer.result()
    assert response.status_code == 503
    assert response.json()["type"] == "urn:wavserve:problem:not-ready"


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--record", "/dev/null/x"], "record.folder: expected a folder"),
        (["--set", "backend.device=cuda"], "backend.device: expected a CUDA device"),
        (["--bundle", "nowhere"], "nowhere"),
    ],
)
def test_a_start_that_cannot_be_is_told_in_a_line(server: Server, tmp_path: Path, flags: list[str], told: str) -> None:
    if "CUDA" in told and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    command = serving(server)
    ports = ["--set", "http.port=0", "--set", "grpc.port=0"]
    failed = subprocess.run(
        [*command, *ports, *flags], capture_output=True, text=True, timeout=120, cwd=tmp_path, check=False
    )
    assert failed.returncode == 1
    assert told in failed.stderr
    assert "Traceback" not in failed.stderr


def serving(server: Server) -> list[str]:
    """Another service like this one."""
    flags = ["--backend", server.backend, "--bundle", str(server.bundle), "--set", "backend.compile=off"]
    return [sys.executable, "-m", "wavserve.cli", "serve", *flags]
