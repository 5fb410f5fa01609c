"""The real service as its users meet it: `wavserve serve` in a process of its own, on free loopback ports."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from wavserve.messages import EncodedImage, Submission

FRAMES = Path(__file__).parents[2] / "examples" / "libero_object_0"
START_S = 120.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@dataclass(frozen=True)
class Server:
    """A running service. `records` is where it keeps its plans, `bundle` what it serves."""

    process: subprocess.Popen[bytes]
    http: str
    grpc: str
    records: Path
    bundle: Path
    log: Path

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


def start(folder: Path, *flags: str) -> Server:
    """Starts a service and waits until it says it is ready."""
    http_port, grpc_port = free_port(), free_port()
    command = [
        sys.executable,
        "-m",
        "wavserve.cli",
        "serve",
        "--http-port",
        str(http_port),
        "--grpc-port",
        str(grpc_port),
    ]
    command += ["--set", f"bundle.root={folder}", "--record", str(folder / "records"), *flags]
    log = folder / "server.log"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("WAVSERVE_")}
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, env=environ, stderr=stderr)
    server = Server(
        process, f"http://127.0.0.1:{http_port}", f"127.0.0.1:{grpc_port}", folder / "records", folder / "tiny", log
    )
    until = time.monotonic() + START_S
    while not is_ready(server):
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            process.wait()
            raise AssertionError(f"the service did not become ready:\n{log.read_text()}")
        time.sleep(0.2)
    return server


def is_ready(server: Server) -> bool:
    try:
        return httpx.get(f"{server.http}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def episode() -> dict[str, Any]:
    told: dict[str, Any] = json.loads((FRAMES / "episode.json").read_text())
    return told


def submission(frame: int = 0, **changes: Any) -> Submission:
    """What a robot sends at one of the example's six frames."""
    told = episode()
    seen = told["frames"][frame]
    images = tuple(EncodedImage(name, "png", (FRAMES / seen[name]).read_bytes()) for name in ("agentview", "wrist"))
    fields: dict[str, Any] = {"seed": 7, "control_step": seen["step"], **changes}
    return Submission(images, tuple(seen["state"]), told["instruction"], **fields)


def post(server: Server, sent: Submission) -> httpx.Response:
    """The same submission as multipart over HTTP."""
    facts: dict[str, Any] = {
        "state": sent.state,
        "instruction": sent.instruction,
        "sequence": sent.sequence,
        "control_step": sent.control_step,
        "executed_steps": sent.executed_steps,
        "seed": sent.seed,
        "imagine_chunks": sent.imagine_chunks,
        "planner": dict(sent.options),
    }
    for name in ("session_id", "deadline_ms", "policy"):
        if getattr(sent, name) is not None:
            facts[name] = getattr(sent, name)
    files = {"request": (None, json.dumps(facts), "application/json")}
    files |= {image.camera: (image.camera, image.data, f"image/{image.encoding}") for image in sent.images}
    return httpx.post(f"{server.http}/v1/plan", files=files, timeout=60)
