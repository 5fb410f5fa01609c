"""Measures a plan at `tiny`, and the time that the edges add to it, from outside on a real service.

An edge's own cost is the robot's time for the whole request minus the receipt's total. That total begins when the
policy has the decoded request and ends with the denormalised actions. Progress goes to stderr. The last line of stdout
is one JSON object with the figures and aims.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from loadtest.aims import at_most
from wavserve.clients.plan_client import PlanClient
from wavserve.core.messages import EncodedImage, Observation
from wavserve.system.serve_process import Child, raise_on_sigterm, running

EPISODE = Path(__file__).parents[2] / "examples" / "libero_object_0"
CAMERAS = ("agentview", "wrist")
WARM_UP = 5
MAX_EDGE_P99_MS = 5.0
"""The aim for the p99 of each edge's own cost."""

SendRequest = Callable[[], float]
"""A function that requests one plan and returns the receipt's total in seconds."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plans", type=int, default=30, help="plans with the defaults of `tiny` (default %(default)s)")
    parser.add_argument("--requests", type=int, default=200, help="requests on each edge (default %(default)s)")
    args = parser.parse_args()
    raise_on_sigterm()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measured(Path(folder), args.plans, args.requests)))


def measured(folder: Path, plans: int, requests: int) -> dict[str, Any]:
    with running(folder / "server.log", ["--preset", "tiny", "--set", f"bundle.root={folder}"]) as service:
        return measure(service, plans, requests)


def measure(service: Child, plans: int, requests: int) -> dict[str, Any]:
    with PlanClient(service.grpc) as client, httpx.Client(base_url=service.http, timeout=60, trust_env=False) as http:
        whole, _ = timed("plan", partial(over_grpc, client, observation({})), plans)
        off = observation({"mode": "off"})
        body, parts = as_json(off), as_multipart(off)
        requests_by_edge: dict[str, SendRequest] = {
            "http_json": lambda: over_http(http.post("/v1/plan", json=body)),
            "http_multipart": lambda: over_http(http.post("/v1/plan", files=parts)),
            "grpc": partial(over_grpc, client, off),
        }
        edges = {name: timed(name, send, requests)[1] for name, send in requests_by_edge.items()}
    return report(whole, edges)


def report(plans_s: Sequence[float], edges_s: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """The JSON object of the last line, from the seconds of each plan and the own costs of each edge."""
    costs = {name: {"requests": len(seconds), **percentiles(seconds)} for name, seconds in edges_s.items()}
    return {
        "bench": "plan",
        "plan_tiny": {"K": 3, "N": 8, "M": 3, "requests": len(plans_s), **percentiles(plans_s)},
        "edge_own_cost": costs,
        "images": "two 256x256 JPEG, quality 90",
        "aims": [
            at_most(f"{name}: p99 of the edge's own cost, ms", MAX_EDGE_P99_MS, cost["p99_ms"])
            for name, cost in costs.items()
        ],
    }


def timed(name: str, send: SendRequest, count: int) -> tuple[list[float], list[float]]:
    """Seconds of each whole request, and the same without planning."""
    whole, own = [], []
    for number in range(WARM_UP + count):
        print(f"\r{name} {number + 1}/{WARM_UP + count}   ", end="", file=sys.stderr, flush=True)
        started = time.perf_counter()
        planning = send()
        elapsed = time.perf_counter() - started
        if number >= WARM_UP:
            whole.append(elapsed)
            own.append(elapsed - planning)
    print(file=sys.stderr)
    return whole, own


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
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


def fields(sent: Observation) -> dict[str, Any]:
    return {"instruction": sent.instruction, "state": sent.state, "planner": dict(sent.options), "seed": sent.seed}


def as_json(sent: Observation) -> dict[str, Any]:
    images = [
        {"camera": image.camera, "encoding": image.encoding, "data": base64.b64encode(image.data).decode()}
        for image in sent.images
    ]
    return {**fields(sent), "images": images}


def as_multipart(sent: Observation) -> dict[str, tuple[str | None, bytes, str]]:
    request: dict[str, tuple[str | None, bytes, str]] = {
        "request": (None, json.dumps(fields(sent)).encode(), "application/json")
    }
    return request | {image.camera: (image.camera, image.data, "image/jpeg") for image in sent.images}


if __name__ == "__main__":
    main()
