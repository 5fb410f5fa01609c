"""A plan at `tiny`, and what the edges cost on top of planning, from outside: a real service, real sockets.

Run by `make bench`. The edge's own cost is the whole request as the robot sees it minus the receipt's total (which
begins when the policy has the decoded request and ends with the denormalised actions). Progress goes to stderr; the
figures are one JSON object on the last line of stdout.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from wavserve.clients.plan_client import PlanClient
from wavserve.core.messages import EncodedImage, Observation
from wavserve.system.serve_process import Child, end_with_us, running

EPISODE = Path(__file__).parents[2] / "examples" / "libero_object_0"
CAMERAS = ("agentview", "wrist")
WARM_UP = 5

Ask = Callable[[], float]
"""One plan; the receipt's total in seconds."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plans", type=int, default=30, help="plans at the tiny defaults (default %(default)s)")
    parser.add_argument("--requests", type=int, default=200, help="requests an edge (default %(default)s)")
    args = parser.parse_args()
    end_with_us()
    with tempfile.TemporaryDirectory() as folder:
        figures = measured(Path(folder), args.plans, args.requests)
    print(json.dumps(figures))


def measured(folder: Path, plans: int, requests: int) -> dict[str, Any]:
    with running(folder / "server.log", ["--set", f"bundle.root={folder}"]) as service:
        return measure(service, plans, requests)


def measure(service: Child, plans: int, requests: int) -> dict[str, Any]:
    with PlanClient(service.grpc) as client, httpx.Client(base_url=service.http, timeout=60) as http:
        whole, _ = timed("plan", partial(over_grpc, client, observation({})), plans)
        off = observation({"mode": "off"})
        body, parts = as_json(off), as_multipart(off)
        asks: dict[str, Ask] = {
            "http_json": lambda: over_http(http.post("/v1/plan", json=body)),
            "http_multipart": lambda: over_http(http.post("/v1/plan", files=parts)),
            "grpc": partial(over_grpc, client, off),
        }
        edges = {name: timed(name, ask, requests)[1] for name, ask in asks.items()}
    return {
        "bench": "plan",
        "plan_tiny": {"K": 3, "N": 8, "M": 3, "requests": plans, **percentiles(whole)},
        "edge_own_cost": {name: {"requests": requests, **percentiles(cost)} for name, cost in edges.items()},
        "images": "two 256x256 JPEG, quality 90",
    }


def timed(name: str, ask: Ask, count: int) -> tuple[list[float], list[float]]:
    """Seconds of each whole request, and of each minus its planning."""
    whole, own = [], []
    for number in range(WARM_UP + count):
        print(f"\r{name} {number + 1}/{WARM_UP + count}   ", end="", file=sys.stderr, flush=True)
        started = time.perf_counter()
        planning = ask()
        elapsed = time.perf_counter() - started
        if number >= WARM_UP:
            whole.append(elapsed)
            own.append(elapsed - planning)
    print(file=sys.stderr)
    return whole, own


def percentiles(seconds: list[float]) -> dict[str, float]:
    p50, p99 = np.percentile(seconds, [50, 99]) * 1000
    return {"p50_ms": round(float(p50), 3), "p99_ms": round(float(p99), 3)}


def over_grpc(client: PlanClient, sent: Observation) -> float:
    return client.plan(sent).receipt.stage_s["total"]


def over_http(response: httpx.Response) -> float:
    answer = response.raise_for_status().json()
    return float(answer["receipt"]["stage_ms"]["total"]) / 1000


def observation(options: dict[str, object]) -> Observation:
    episode = json.loads((EPISODE / "episode.json").read_text())
    frame = episode["frames"][0]
    images = tuple(EncodedImage(camera, "jpeg", jpeg(EPISODE / frame[camera])) for camera in CAMERAS)
    return Observation(
        images=images, state=tuple(frame["state"]), instruction=episode["instruction"], options=options, seed=1
    )


def jpeg(png: Path) -> bytes:
    encoded = io.BytesIO()
    Image.open(png).convert("RGB").save(encoded, "JPEG", quality=90)
    return encoded.getvalue()


def facts(sent: Observation) -> dict[str, Any]:
    return {"instruction": sent.instruction, "state": sent.state, "planner": dict(sent.options), "seed": sent.seed}


def as_json(sent: Observation) -> dict[str, Any]:
    images = [
        {"camera": image.camera, "encoding": image.encoding, "data": base64.b64encode(image.data).decode()}
        for image in sent.images
    ]
    return {**facts(sent), "images": images}


def as_multipart(sent: Observation) -> dict[str, tuple[str | None, bytes, str]]:
    request: dict[str, tuple[str | None, bytes, str]] = {
        "request": (None, json.dumps(facts(sent)).encode(), "application/json")
    }
    return request | {image.camera: (image.camera, image.data, "image/jpeg") for image in sent.images}


if __name__ == "__main__":
    main()
