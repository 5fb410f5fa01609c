"""A gateway of the operations benchmark with some of its parts on, and the peers of those parts.

The gateway is the real service over a fake backend. Its peers run in processes of their own: a Redis, a collector of
traces, a reader of `/metrics`, a viewer of the live page.
"""

from __future__ import annotations

import contextlib
import math
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from loadtest.bench.control import Usage
from loadtest.bench.ops_figures import Lag
from loadtest.redis_server import redis_server
from loadtest.robots.frames import Frames
from wavserve.clients.plan_client import PlanClient
from wavserve.models.weights import presets
from wavserve.system.processes import free_ports
from wavserve.system.serve_process import Child, running

METRICS, SESSIONS, TRACING, PAGE = "metrics", "sessions", "tracing", "page"
PRESET = "tiny"
LAG = "wavserve_event_loop_lag_seconds"
SERVICE = (sys.executable, "-m", "loadtest.bench.fake_service")
PEER = (sys.executable, "-m", "loadtest.bench.ops_peers")


@dataclass(frozen=True, slots=True)
class Peers:
    """What the gateways of a run share."""

    folder: Path
    """of the gateways' logs"""
    bundle: Path
    redis_url: str
    collector: str

    @classmethod
    @contextlib.contextmanager
    def running(cls, folder: Path) -> Iterator[Self]:
        """Makes a bundle, and runs a Redis and a collector for the duration of a block."""
        # A fake backend does not make the golden plan of the models.
        bundle = presets.create(PRESET, folder / PRESET, with_golden=False)
        [port] = free_ports(1)
        with redis_server() as redis, peer("collect", str(port)):
            yield cls(folder, bundle.folder, redis.url, f"http://127.0.0.1:{port}")


class Gateway:
    """A running gateway, and one robot that asks it for plans."""

    def __init__(self, service: Child, client: PlanClient, http: httpx.Client) -> None:
        self.service = service
        self._client, self._http = client, http
        self._process = psutil.Process(service.process.pid)
        self._frames, self._number, self._steps = Frames.recorded(), 0, 0
        self._session: str | None = None
        self.begin_usage()

    def plan(self) -> float:
        """Seconds of the robot's next plan. Raises what the client raises."""
        number, executed = self._number, self._steps
        seen = replace(
            self._frames.at(number),
            session_id=self._session,
            sequence=number,
            control_step=number * executed,
            executed_steps=executed if number else 0,
            seed=number,
        )
        began = time.perf_counter()
        chunk = self._client.plan(seen)
        elapsed = time.perf_counter() - began
        self._number, self._steps, self._session = number + 1, len(chunk.actions), chunk.session_id
        return elapsed

    def begin_usage(self) -> None:
        """Processor time counts from here on."""
        self._usage = Usage(self._process)

    @property
    def cpu_s(self) -> float:
        return self._usage.cpu_s

    @property
    def cores(self) -> float:
        return self._usage.cores

    def scrape(self) -> float:
        """Seconds of one read of `/metrics`."""
        began = time.perf_counter()
        self._http.get("/metrics").raise_for_status()
        return time.perf_counter() - began

    def lag(self) -> Lag:
        """How late the event loop was until now."""
        text = self._http.get("/metrics").raise_for_status().text
        [family] = [each for each in text_string_to_metric_families(text) if each.name == LAG]
        upto = {float(each.labels["le"]): each.value for each in family.samples if each.name == f"{LAG}_bucket"}
        [total] = [each.value for each in family.samples if each.name == f"{LAG}_sum"]
        assert math.inf in upto
        return Lag(upto, total)


@contextlib.contextmanager
def opened(name: str, parts: frozenset[str], peers: Peers) -> Iterator[Gateway]:
    """A gateway with these parts, and their readers, for the duration of a block."""
    flags = ["--backend=local", f"--bundle={peers.bundle}", "--set=backend.compile=off"]
    flags += [f"--set=sessions.url={peers.redis_url}"] if SESSIONS in parts else []
    flags += [f"--set=tracing.endpoint={peers.collector}"] if TRACING in parts else []
    command = SERVICE if METRICS in parts else (*SERVICE, "--without-metrics")
    with contextlib.ExitStack() as stack:
        service = stack.enter_context(running(peers.folder / f"{name}.log", flags, command))
        client = stack.enter_context(PlanClient(service.grpc))
        http = stack.enter_context(httpx.Client(base_url=service.http, timeout=60, trust_env=False))
        if METRICS in parts:
            stack.enter_context(peer("scrape", f"{service.http}/metrics"))
        if PAGE in parts:
            stack.enter_context(peer("watch", f"{service.http}/ui/events"))
        yield Gateway(service, client, http)


@contextlib.contextmanager
def peer(*arguments: str) -> Iterator[None]:
    """A peer in a process of its own, which ends with the block. Raises RuntimeError when it did not begin."""
    line: Sequence[str] = (*PEER, *arguments)
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline().strip() != "ready":
                raise RuntimeError(f"{arguments[0]}: the process failed; its output is above")
            yield
            if process.poll() is not None:
                raise RuntimeError(f"{arguments[0]}: the process ended early; its output is above")
        finally:
            process.kill()
