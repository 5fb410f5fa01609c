"""A real service whose models do not make the golden plan: it runs, says why it is not ready, and plans nothing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from safetensors.torch import load_file, save_file

from tests.service.processes import until
from tests.service.rig import REPOSITORY
from wavserve.backends.triton.wheel import find_obstacle
from wavserve.bundle import bundle
from wavserve.bundle.bundle import Bundle
from wavserve.models.weights.checkpoint import FILE
from wavserve.system.processes import free_ports
from wavserve.system.serve_process import SERVE

SERVING = health_pb2.HealthCheckResponse.SERVING
EMBEDDED = pytest.param(
    "triton-embedded",
    marks=pytest.mark.skipif(find_obstacle(REPOSITORY) is not None, reason="no real Triton on this machine"),
)


@pytest.fixture
def tampered(tiny_piper: Bundle, tmp_path: Path) -> Path:
    """The bundle with one matrix of the action expert changed by 5 %."""
    folder = tmp_path / "tampered"
    shutil.copytree(tiny_piper.folder, folder)
    path = folder / bundle.TRANSFORMER / FILE
    tensors = load_file(path)
    save_file(tensors | {"action_proj_out.weight": tensors["action_proj_out.weight"] * 1.05}, path)
    return folder


@pytest.mark.parametrize("backend", ["local", EMBEDDED])
def test_a_service_with_changed_weights_is_never_ready(backend: str, tampered: Path, tmp_path: Path) -> None:
    http, rpc = free_ports(2)
    own = [f"--http-port={http}", f"--grpc-port={rpc}", "--backend", backend, "--set", "backend.compile=off"]
    log = tmp_path / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen([*SERVE, *own, "--bundle", str(tampered)], stdout=output, stderr=output)
    url = f"http://127.0.0.1:{http}"
    try:
        until(lambda: "golden plan" in readiness(url).get("detail", ""), "readyz says what is wrong")
        told = readiness(url)
        assert (told["status"], told["type"]) == (503, "urn:wavserve:problem:not-ready")
        assert httpx.get(f"{url}/healthz").is_success
        assert httpx.post(f"{url}/v1/plan", json={}).json()["type"] == told["type"]
        with grpc.insecure_channel(f"127.0.0.1:{rpc}") as channel:
            asked = health_pb2.HealthCheckRequest()
            assert health_pb2_grpc.HealthStub(channel).Check(asked).status != SERVING
    finally:
        process.terminate()
        assert process.wait(300) == 0
    lines = [line for line in log.read_text().splitlines() if "golden plan" in line]
    assert len(lines) == 1, lines
    assert "gets no plans: golden plan: " in lines[0]
    assert " at step " in lines[0]
    assert ": ready" not in log.read_text()


def readiness(url: str) -> dict[str, Any]:
    """The problem that /readyz answers; empty while nothing listens."""
    try:
        answer = httpx.get(f"{url}/readyz", timeout=10)
    except httpx.TransportError:
        return {}
    told: dict[str, Any] = answer.json()
    return told
