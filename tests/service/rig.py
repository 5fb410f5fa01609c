"""The real service: `wavserve serve` in a process of its own, on free loopback ports."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import httpx

from wavserve.core.messages import EncodedImage, Observation
from wavserve.system import serve_process
from wavserve.system.serve_process import Child

FRAMES = Path(__file__).parents[2] / "examples" / "libero_object_0"
REPOSITORY = Path(__file__).parents[2] / "model_repository"
LONG = {"num_iterations": 10, "num_video_samples": 64, "num_value_samples": 16}
"""options of a plan that takes many seconds"""
SECONDS = {"num_iterations": 10, "num_video_samples": 24}
"""options of a plan that takes a second or more"""


@dataclass(frozen=True)
class Server(Child):
    """A running service; `records` is its folder of recorded plans, `bundle` the bundle that it serves."""

    records: Path
    bundle: Path
    backend: str


def start(folder: Path, backend: str, *flags: str) -> Server:
    records = folder / "records"
    # compilation takes a minute of a first start, and test_compiled tests it
    own = ["--backend", backend, "--set", "backend.compile=off", "--preset", "tiny"]
    own += ["--set", f"bundle.root={folder}", "--record", str(records)]
    started = serve_process.start(folder / "server.log", [*own, *flags])
    return Server(started.process, started.http, started.grpc, started.log, records, folder / "tiny", backend)


def episode() -> dict[str, Any]:
    recorded: dict[str, Any] = json.loads((FRAMES / "episode.json").read_text())
    return recorded


def observation(frame: int = 0, **changes: Any) -> Observation:
    """The observation of one of the example's six frames."""
    recorded = episode()
    facts = recorded["frames"][frame]
    images = tuple(EncodedImage(name, "png", (FRAMES / facts[name]).read_bytes()) for name in ("agentview", "wrist"))
    fields: dict[str, Any] = {"seed": 7, "control_step": facts["step"], **changes}
    return Observation(images=images, state=tuple(facts["state"]), instruction=recorded["instruction"], **fields)


def plan_command(server: Server, *flags: str) -> list[str]:
    """`wavserve plan` of the first recorded frame."""
    frame = episode()["frames"][0]
    images = [f"--image={camera}={FRAMES / frame[camera]}" for camera in ("agentview", "wrist")]
    state, instruction = ",".join(map(str, frame["state"])), episode()["instruction"]
    command = [sys.executable, "-m", "wavserve.cli", "plan", f"--server={server.grpc}", *images]
    return [*command, f"--state={state}", f"--instruction={instruction}", *flags]


def post(server: Server, sent: Observation) -> httpx.Response:
    """Sends the observation as multipart over HTTP."""
    return httpx.post(f"{server.http}/v1/plan", files=form(sent), timeout=300)


def form(sent: Observation) -> dict[str, Any]:
    """The observation as the parts of a multipart form."""
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
    if (rtc := sent.rtc) is not None:
        facts["rtc"] = {each.name: getattr(rtc, each.name) for each in fields(rtc)}
        facts["rtc"]["prev_chunk_left_over"] = rtc.prev_chunk_left_over.tolist()
    files: dict[str, Any] = {"request": (None, json.dumps(facts), "application/json")}
    return files | {image.camera: (image.camera, image.data, f"image/{image.encoding}") for image in sent.images}
