"""Makes the docs' pictures of the dashboards from a real run: `python -m tests.observability.pictures [SECONDS]`.

A service with an embedded Triton and a Redis, two robots with control loops, a robot that reports what it executes, and
requests with and without deadlines. The GPU's metrics are those of `triton_gpu.txt`, for there is none.
"""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from deploy.grafana.pictures import FOLDER, draw
from loadtest.redis_server import redis_server
from tests.observability.programs import prometheus
from tests.observability.queries import GPU
from tests.observability.test_prometheus import gpu_metrics, query, until
from tests.service.rig import Server, observation, start
from tests.service.test_control import Robot, seen
from wavserve.clients.plan_client import PlanClient
from wavserve.core.control import ExecutionReport, HoldReason
from wavserve.core.errors import WavserveError
from wavserve.core.messages import ActionChunk
from wavserve.system.processes import free_ports

SECONDS = 90.0
NOTE = "The GPU's values are made up: there was none."
STEPS, STEP_S = 8, 0.1
"""of the robot that reports"""


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = stack.enter_context(redis_server())
        [port] = free_ports(1)
        flags = ["--set", f"triton.metrics_port={port}", "--set", f"sessions.url={redis.url}"]
        service = start(folder, "triton-embedded", *flags)
        stack.callback(service.stop)
        gpu = stack.enter_context(gpu_metrics())
        targets = {
            "gateway": (service.http.removeprefix("http://"), "/metrics"),
            "triton": (f"127.0.0.1:{port}", "/metrics"),
            "gpu": (gpu, f"/{GPU.name}"),
        }
        client = stack.enter_context(prometheus(folder, targets))
        until(lambda: len(query(client, "up == 1")) == len(targets), "every target is up")
        ended = work(service, seconds)
        draw(client, (ended - seconds, ended), "15s", FOLDER, NOTE)


def work(service: Server, seconds: float) -> float:
    """Robots on streams, and meanwhile single requests of every kind. Returns the Unix time of the robots' end."""
    line = [sys.executable, "-m", "loadtest.bench.control_robots", f"--target={service.grpc}", "--over=control"]
    line += ["--first=0", "--robots=2", f"--seconds={seconds}"]
    done = threading.Event()
    others = [threading.Thread(target=each, args=(service, done)) for each in (ask, report)]
    for each in others:
        each.start()
    try:
        subprocess.run(line, input="\n", text=True, check=True, stdout=subprocess.DEVNULL)
        return time.time()
    finally:
        done.set()
        for each in others:
            each.join()


def ask(service: Server, done: threading.Event) -> None:
    """Plans with 1 to 3 iterations until `done`; of the deadlines some cannot be kept."""
    with PlanClient(service.grpc) as client:
        for number in itertools.count():
            if done.wait(0.5):
                return
            deadline_ms = (None, 60_000, 5_000, 1_500, 5)[number % 5]
            options = {"num_iterations": 1 + number % 3}
            with contextlib.suppress(WavserveError):
                client.plan(observation(number % 6, seed=number, deadline_ms=deadline_ms, options=options))


def report(service: Server, done: threading.Event) -> None:
    """A robot that executes eight steps of each chunk at 10 Hz, and stands still where the next one is late."""
    robot = Robot(service, "arm")
    welcome, last = robot.receive(), None
    for number in itertools.count():
        if done.is_set():
            break
        began = time.monotonic()
        steps = {"control_step": STEPS * number, "executed_steps": STEPS if number else 0}
        robot.send(replace(seen(number % 6, welcome.epoch), sequence=number, **steps))
        if not isinstance(chunk := robot.receive(), ActionChunk):
            continue
        age_s = time.monotonic() - began
        jump = 0.0 if last is None else float(abs(chunk.actions[0] - last[STEPS]).max() / np.ptp(last))
        starved = max(0, round((age_s - STEPS * STEP_S) / STEP_S))
        reason = HoldReason.NO_CHUNK if starved else None
        told = ExecutionReport(chunk_id=chunk.chunk_id, hold_reason=reason, chunk_age_ms=1e3 * age_s, seam_jump=jump)
        robot.send(replace(told, starved_steps=starved))
        last = chunk.actions
        done.wait(max(0.0, STEPS * STEP_S - age_s))
    robot.close()


if __name__ == "__main__":
    main()
