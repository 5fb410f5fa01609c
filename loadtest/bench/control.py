"""Compares the stream Control with unary Plan: time from frame to chunk, jitter of 30 Hz loops, bytes, processor time.

The policy is `tiny-piper` without planning iterations, on the fake backend (the gateway alone) and on a real one. Two
measurements follow each other for each number of robots:

- `links`: thin clients in this process ask over a stream and over unary Plan in turn, while every stream pings
- `loops`: robots with action player and control loop, a few in each process, over Control and over unary Plan in turn

Progress goes to stderr. The output is a table, then one JSON object on the last line.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from loadtest.bench.bare_planner import REPOSITORY
from loadtest.bench.control_figures import PRESET, LoopRun, link_figures, loop_figures, report, table
from loadtest.bench.control_frames import Pictures, observation_bytes
from loadtest.bench.control_links import compare
from wavserve.backends.triton.wheel import find_obstacle
from wavserve.clients.plan_client import PlanClient
from wavserve.models.weights import presets
from wavserve.system import serve_process

FAKE = (sys.executable, "-m", "loadtest.bench.fake_service")
SERVICES: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
    "fake": (["--backend", "local", "--set", "backend.compile=off"], FAKE),
    "local": (["--backend", "local"], serve_process.SERVE),
    "triton-embedded": (["--backend", "triton-embedded"], serve_process.SERVE),
}
"""Name of a backend -> arguments and command of its service."""
ROBOTS = (1, 4, 16)
ROBOTS_PER_PROCESS = 4
REST = 0.25
"""How long the robots are connected before their loops begin, as a share of a loop's time."""
MIN_SECONDS = 4.0
"""With less, the robots of the loops get fewer than two chunks."""


class Usage:
    """Processor time of a process since this was made. Models of an embedded Triton are in other processes."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._began, self._before = time.monotonic(), self._used_s()

    @property
    def cpu_s(self) -> float:
        return self._used_s() - self._before

    @property
    def wall_s(self) -> float:
        return time.monotonic() - self._began

    @property
    def cores(self) -> float:
        return self.cpu_s / self.wall_s

    def _used_s(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    real = "triton-embedded" if find_obstacle(REPOSITORY) is None else "local"
    parser.add_argument(
        "--backends", nargs="+", choices=tuple(SERVICES), default=("fake", real), help="default: fake and the service's"
    )
    parser.add_argument("--robots", nargs="+", type=int, default=ROBOTS, help="numbers of robots (default 1 4 16)")
    parser.add_argument(
        "--seconds", type=float, default=16.0, help="seconds on each link and in each loop (default %(default)s)"
    )
    args = parser.parse_args()
    if args.seconds < MIN_SECONDS:
        parser.error(f"--seconds: expected at least {MIN_SECONDS:g}, got {args.seconds:g}")
    serve_process.raise_on_sigterm()
    with tempfile.TemporaryDirectory() as folder:
        found = measured(Path(folder), args.backends, args.robots, args.seconds)
    print(table(found))
    print(json.dumps(found))


def measured(folder: Path, backends: Sequence[str], robots: Sequence[int], seconds: float) -> dict[str, Any]:
    pictures, results, load = Pictures.recorded(), {}, os.getloadavg()
    for backend in backends:
        note(f"starting {backend}")
        # A fake backend does not make the golden plan of the models.
        bundle = presets.create(PRESET, folder / backend, with_golden=backend != "fake")
        flags, command = SERVICES[backend]
        flags = ["--bundle", str(bundle.folder), *flags]
        with serve_process.running(folder / f"{backend}.log", flags, command) as service:
            results[backend] = {str(count): measure(service, backend, count, seconds, pictures) for count in robots}
            with PlanClient(service.grpc) as client:
                sizes = observation_bytes(pictures, client.policy())
    note("")
    return report(results, sizes, seconds, [load, os.getloadavg()])


def measure(
    service: serve_process.Child, backend: str, robots: int, seconds: float, pictures: Pictures
) -> dict[str, Any]:
    """Both measurements with some robots on one service."""
    note(f"{backend}, {robots} robots: links")
    cpu_s, began = time.process_time(), time.monotonic()
    found = asyncio.run(compare(service.grpc, robots, 2 * seconds, pictures))
    client_cores = (time.process_time() - cpu_s) / (time.monotonic() - began)
    runs: dict[str, list[LoopRun]] = {"control": [], "unary": []}
    for over in ("control", "unary", "unary", "control"):
        note(f"{backend}, {robots} robots: loops over {over}")
        runs[over].append(run_loops(service, over, robots, seconds / 2))
    return {
        "links": {**link_figures(found), "client_cores": round(client_cores, 2)},
        "loops": {over: loop_figures(turns) for over, turns in runs.items()},
    }


def run_loops(service: serve_process.Child, over: str, robots: int, seconds: float) -> LoopRun:
    """Runs robots in a few processes, which begin together after a time of rest.

    Raises RuntimeError when a process failed.
    """
    gateway = psutil.Process(service.process.pid)
    line = [sys.executable, "-m", "loadtest.bench.control_robots", f"--target={service.grpc}", f"--over={over}"]
    with contextlib.ExitStack() as stack:
        processes = []
        for first in range(0, robots, ROBOTS_PER_PROCESS):
            share = min(ROBOTS_PER_PROCESS, robots - first)
            flags = [f"--first={first}", f"--robots={share}", f"--seconds={seconds}"]
            processes.append(stack.enter_context(_child([*line, *flags])))
        for each in processes:
            _read_line(each)
        rest = Usage(gateway)
        time.sleep(REST * seconds)
        rest_cores = rest.cores
        work = Usage(gateway)
        for each in processes:
            _begin(each)
        outputs = [json.loads(_read_line(each)) for each in processes]
        return LoopRun(outputs, rest_cores, work.cpu_s, work.wall_s)


@contextlib.contextmanager
def _child(line: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
            process.wait()
        finally:
            process.kill()


def _read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError("a process of robots failed; its output is above")
    return line


def _begin(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    print(file=process.stdin, flush=True)


def note(text: str) -> None:
    print(f"\r\033[K{text}", end="" if sys.stderr.isatty() else "\n", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
