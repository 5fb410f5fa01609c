"""How a service starts, refuses to start, drains and stops."""

from __future__ import annotations

import concurrent.futures
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import torch

from tests.service.rig import LONG, SECONDS, Server, observation, post, start
from wavserve.clients.plan_client import PlanClient
from wavserve.core.errors import NotReady


def test_a_port_in_use_fails_the_start(server: Server, tmp_path: Path) -> None:
    command = serving(server)
    for key, address in (("http.port", server.http), ("grpc.port", server.grpc)):
        ports = {"http.port": "0", "grpc.port": "0", key: address.rpartition(":")[2]}
        flags = [flag for name, port in ports.items() for flag in ("--set", f"{name}={port}")]
        failed = subprocess.run(
            [*command, *flags], capture_output=True, text=True, timeout=300, cwd=tmp_path, check=False
        )
        assert failed.returncode == 1
        assert f"{key}: cannot listen on" in failed.stderr
        assert "Traceback" not in failed.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--record", "/dev/null/x"], "record.folder: expected a folder"),
        (["--set", "backend.device=cuda"], "backend.device: expected a CUDA device"),
        (["--bundle", "nowhere"], "nowhere"),
    ],
)
def test_a_start_that_cannot_succeed_fails_with_one_line(
    server: Server, tmp_path: Path, flags: list[str], message: str
) -> None:
    if "CUDA" in message and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    command = serving(server)
    ports = ["--set", "http.port=0", "--set", "grpc.port=0"]
    failed = subprocess.run(
        [*command, *ports, *flags], capture_output=True, text=True, timeout=300, cwd=tmp_path, check=False
    )
    assert failed.returncode == 1
    assert message in failed.stderr
    assert "Traceback" not in failed.stderr


def serving(server: Server) -> list[str]:
    """The command line of another service like this one."""
    flags = ["--backend", server.backend, "--bundle", str(server.bundle), "--set", "backend.compile=off"]
    return [sys.executable, "-m", "wavserve.cli", "serve", *flags]


def test_a_signal_drains_the_service(tmp_path: Path, server: Server) -> None:
    """Plans under way are answered, and then the process exits by itself."""
    running = start(tmp_path, server.backend, "--bundle", str(server.bundle), "--set", "limits.drain_s=300")
    with concurrent.futures.ThreadPoolExecutor(2) as pool, PlanClient(running.grpc) as client:
        answers = [pool.submit(client.plan, observation(seed=seed, options=SECONDS)) for seed in range(2)]
        while "wavserve_plans_in_flight 2.0" not in httpx.get(f"{running.http}/metrics").text:
            assert not any(answer.done() for answer in answers)
        assert running.stop() == 0
        assert [len(answer.result().receipt.iterations) for answer in answers] == [10, 10]
        with pytest.raises(NotReady):
            client.policy()


def test_plans_that_outlast_the_drain_get_a_typed_error(tmp_path: Path, server: Server) -> None:
    running = start(tmp_path, server.backend, "--bundle", str(server.bundle), "--set", "limits.drain_s=0.2")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(post, running, observation(options=LONG))
        while "wavserve_plans_in_flight 1.0" not in httpx.get(f"{running.http}/metrics").text:
            assert not answer.done()
        assert running.stop() == 0
        response = answer.result()
    assert response.status_code == 503
    assert response.json()["type"] == "urn:wavserve:problem:not-ready"


def test_an_endless_upload_does_not_keep_the_service_running(tmp_path: Path, server: Server) -> None:
    running = start(tmp_path, server.backend, "--bundle", str(server.bundle))
    host, port = running.http.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as upload:
        upload.sendall(b"POST /v1/plan HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        assert running.stop() == 0
