"""Compares the service with servers that make one plan at a time, on the same bundle and edges, in turns.

`ours` is the service. `serial-plain` plans as the authors' server does: it has a lock and the plain path. `serial-fast`
puts the lock around our own policy, on the same backend as `ours`. By default this is the service's default backend:
embedded Triton where it can run. The robots send requests in a closed loop without a pause, over gRPC. A turn's
throughput is the number of plans begun in it, divided by the time until the last answer. Figures are medians over
turns. Progress goes to stderr. The output is a table, then one JSON object on the last line.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from loadtest.aims import at_least
from loadtest.aims import table as aims_table
from loadtest.bench.bare_planner import REPOSITORY, BarePlanner, on_local
from loadtest.robots import figures
from loadtest.robots.event_log import EventLog
from loadtest.robots.frames import Frames
from loadtest.robots.pacing import ClosedLoop
from loadtest.robots.robot import Assignment, Identity, Robot, WallClock
from loadtest.robots.scenario import RobotGroup
from loadtest.robots.transports import GrpcTransport
from wavserve.backends.triton.wheel import find_obstacle
from wavserve.bundle.bundle import Bundle
from wavserve.models.weights import presets
from wavserve.system import serve_process

BACKENDS = ("triton-embedded", "local")
ROBOTS = (1, 2, 4, 8)
SERIAL = (sys.executable, "-m", "loadtest.bench.serial_service")
DEADLINE_PLANS = 4.0
"""The deadline of the pass `deadline`, as a multiple of a lone robot's plan on `ours`."""
MIN_SPEEDUPS = (
    ("planned", 8, "serial-plain", 2.5),
    ("planned", 8, "serial-fast", 1.2),
    ("off", 8, "serial-fast", 2.0),
)
"""Pass, robots, other server, and the minimum ratio of our throughput to the other's."""
LONE_STRETCH = 4
"""The turns of a lone robot on `ours` are longer by this factor, so that its p99 is over enough plans."""
BARE_PLANS = 20
"""plans on the bare backend in each turn"""


@dataclass(frozen=True, slots=True)
class Pass:
    """A pass of the comparison: the planner options of its requests, and whether they have a deadline."""

    name: str
    options: Mapping[str, str]
    deadline: bool = False


PASSES = (Pass("planned", {}), Pass("deadline", {}, deadline=True), Pass("off", {"mode": "off"}))


@dataclass(frozen=True, slots=True)
class TurnResult:
    """The result of one turn of one server."""

    plans_per_s: float
    seconds: tuple[float, ...]
    """latency of every answered plan"""
    in_time: float
    """share of requests answered in time"""
    iterations: float
    """mean number of planning iterations"""


@dataclass(slots=True)
class Comparison:
    """A comparison in progress."""

    servers: Mapping[str, serve_process.Child]
    seconds: float
    turns: int
    results: dict[tuple[str, int, str], list[TurnResult]] = field(default_factory=dict)
    """(pass, robots, server) -> results of its turns"""
    bare: list[float] = field(default_factory=list)
    """seconds of backend calls in each plan on the bare backend, in this process"""
    frames: Frames = field(default_factory=Frames.recorded)

    async def run(self, planner: BarePlanner) -> None:
        """Runs every pass. The bare backend's turns follow those of a lone robot."""
        for one in PASSES:
            for turn in range(self.turns):
                for robots in ROBOTS:
                    for name in self.servers:
                        result = await self._turn(one, robots, name)
                        self.results.setdefault((one.name, robots, name), []).append(result)
                        self._show(one, turn, robots, name, result)
                    if robots == 1 and one.name == "planned":
                        await self._plan_bare(planner)
        note("")

    async def _turn(self, one: Pass, robots: int, name: str) -> TurnResult:
        deadline_ms = round(DEADLINE_PLANS * self.lone_s() * 1e3) if one.deadline else None
        stretch = LONE_STRETCH if (one.name, robots, name) == ("planned", 1, "ours") else 1
        group = RobotGroup(edge="grpc", executed=0, replan_at=0, planner=one.options)
        log, began = EventLog(), time.monotonic()
        async with _transports(self.servers[name], robots) as transports:
            working = []
            for number, transport in enumerate(transports):
                robot = Robot(Identity(f"{number}", "bench", group, number), self.frames, log, WallClock())
                until = began + stretch * self.seconds
                working.append(robot.work(Assignment("turn", until, ClosedLoop(), transport, deadline_ms)))
            await asyncio.gather(*working)
        return summed(log, began)

    def lone_s(self) -> float:
        """Median seconds of a lone robot's plan on `ours`, without a deadline."""
        return statistics.median(s for turn in self.results["planned", 1, "ours"] for s in turn.seconds)

    async def _plan_bare(self, planner: BarePlanner) -> None:
        """The same plans on the backend alone. Their spread is the part that the machine causes."""
        for number in range(BARE_PLANS):
            planner.timed.calls.clear()
            await planner.plan(number)
            self.bare.append(sum(seconds for _, seconds in planner.timed.calls))

    def _show(self, one: Pass, turn: int, robots: int, name: str, result: TurnResult) -> None:
        note(f"{one.name} turn {turn + 1}/{self.turns} {robots} robots {name}: {result.plans_per_s:.2f} plans/s")


@contextlib.asynccontextmanager
async def _transports(server: serve_process.Child, count: int) -> AsyncIterator[list[GrpcTransport]]:
    transports = [GrpcTransport(server.grpc) for _ in range(count)]
    try:
        yield transports
    finally:
        await asyncio.gather(*(transport.close() for transport in transports))


def summed(log: EventLog, began: float) -> TurnResult:
    """The result of a turn. A refused plan counts as not answered in time.

    Raises RuntimeError when a request failed with another error or a reply contradicts its request. A comparison is
    then meaningless.
    """
    expected = ("answered", "missed", "refused")
    wrong = [request for request in log.requests if request.outcome not in expected or request.contradictions]
    if wrong:
        raise RuntimeError(f"{wrong[0].outcome}: {wrong[0].message} {' '.join(wrong[0].contradictions)}")
    done = figures.answered(log.requests)
    iterations = [request.reply.iterations_done for request in done if request.reply is not None]
    return TurnResult(
        plans_per_s=len(done) / (max(request.ended for request in log.requests) - began),
        seconds=tuple(request.seconds for request in done),
        in_time=len(figures.in_time(done)) / len(log.requests),
        iterations=float(np.mean(iterations)) if iterations else 0.0,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=BACKENDS, help="backend of ours and serial-fast (default: the service's)")
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds per turn (default %(default)s)")
    parser.add_argument(
        "--turns", type=int, default=3, help="turns per server, pass and number of robots (default %(default)s)"
    )
    parser.add_argument("--one-backend", action="store_true", help="do not run ours on the other backend")
    args = parser.parse_args()
    serve_process.raise_on_sigterm()
    runnable = BACKENDS if find_obstacle(REPOSITORY) is None else BACKENDS[1:]
    backend = args.backend or runnable[0]
    with tempfile.TemporaryDirectory() as folder:
        tiny = presets.create("tiny", Path(folder) / "tiny")
        with started(Path(folder), tiny, backend, () if args.one_backend else runnable) as servers:
            comparison = Comparison(servers, args.seconds, args.turns)
            asyncio.run(compare(comparison, tiny))
    found = report(comparison, backend)
    print(table(found))
    print(json.dumps(found))


async def compare(comparison: Comparison, tiny: Bundle) -> None:
    async with on_local(tiny) as planner:
        await planner.plan(0)
        await comparison.run(planner)


@contextlib.contextmanager
def started(
    folder: Path, tiny: Bundle, backend: str, others: Sequence[str]
) -> Iterator[Mapping[str, serve_process.Child]]:
    """Starts all servers at once. A server that waits for its turn is idle."""
    flags = ["--bundle", str(tiny.folder)]
    chosen = {
        "ours": ([*flags, "--backend", backend], serve_process.SERVE),
        "serial-plain": ([*flags, "--backend", "local"], (*SERIAL, "--path=plain")),
        "serial-fast": ([*flags, "--backend", backend], (*SERIAL, "--path=fast")),
    }
    for other in others:
        if other != backend:
            chosen[f"ours-{other}"] = ([*flags, "--backend", other], serve_process.SERVE)
    with contextlib.ExitStack() as stack:
        servers = {}
        for name, (arguments, command) in chosen.items():
            note(f"starting {name}")
            servers[name] = stack.enter_context(serve_process.running(folder / f"{name}.log", arguments, command))
        yield servers


def report(comparison: Comparison, backend: str) -> dict[str, Any]:
    """The figures and aims as the JSON object of the last line."""
    passes: dict[str, dict[str, Any]] = {one.name: {} for one in PASSES}
    for (name, robots, server), turns in comparison.results.items():
        passes[name].setdefault(str(robots), {})[server] = medians(turns)
    lone = [s for turn in comparison.results["planned", 1, "ours"] for s in turn.seconds]
    return {
        "bench": "serving",
        "backend": backend,
        "turns": comparison.turns,
        "turn_s": comparison.seconds,
        "deadline_ms": round(DEADLINE_PLANS * comparison.lone_s() * 1e3),
        "passes": passes,
        "p99_over_p50": {
            "plan_of_a_lone_robot": spread(lone),
            "plans": len(lone),
            "bare_backend": spread(comparison.bare),
            "bare_plans": len(comparison.bare),
        },
        "bare_backend_p50_ms": round(float(np.median(comparison.bare)) * 1e3, 1),
        "aims": [
            at_least(f"{name}, {robots} robots: our plans/s over {other}'s", least, ratio(passes, name, robots, other))
            for name, robots, other, least in MIN_SPEEDUPS
        ],
    }


def medians(turns: Sequence[TurnResult]) -> dict[str, float | None]:
    """Medians of a server's rates and shares over its turns, and percentiles of all plans (None without a plan)."""
    every = [seconds * 1e3 for turn in turns for seconds in turn.seconds]
    p50, p99 = (round(float(each), 1) for each in np.percentile(every, [50, 99])) if every else (None, None)
    return {
        "plans_per_s": round(statistics.median(turn.plans_per_s for turn in turns), 3),
        "p50_ms": p50,
        "p99_ms": p99,
        "in_time": round(statistics.median(turn.in_time for turn in turns), 3),
        "iterations": round(statistics.median(turn.iterations for turn in turns), 2),
    }


def ratio(passes: Mapping[str, Mapping[str, Any]], name: str, robots: int, other: str) -> float:
    """Ratio of our throughput to another server's."""
    servers = passes[name][str(robots)]
    return round(float(servers["ours"]["plans_per_s"] / servers[other]["plans_per_s"]), 2)


def spread(seconds: Sequence[float]) -> float:
    """Ratio of p99 to p50."""
    p50, p99 = np.percentile(seconds, [50, 99])
    return round(float(p99 / p50), 3)


def table(found: Mapping[str, Any]) -> str:
    """The figures as text, one line per pass, number of robots and server; then the aims."""
    lines = [f"{'pass':<9} robots {'server':<20} plans/s   p50 ms   p99 ms  in time    K   ours over it"]
    for name, counts in found["passes"].items():
        for robots, servers in counts.items():
            for server, of in servers.items():
                over = servers["ours"]["plans_per_s"] / of["plans_per_s"] if of["plans_per_s"] else float("inf")
                p50, p99 = ("-" if of[key] is None else f"{of[key]:.0f}" for key in ("p50_ms", "p99_ms"))
                lines.append(
                    f"{name:<9} {robots:>6} {server:<20} {of['plans_per_s']:7.2f} {p50:>8} "
                    f"{p99:>8} {of['in_time']:8.0%} {of['iterations']:4.1f}   {over:.2f}"
                )
    spreads = found["p99_over_p50"]
    lines.append(
        f"p99/p50: lone robot {spreads['plan_of_a_lone_robot']} ({spreads['plans']} plans), bare backend "
        f"{spreads['bare_backend']} ({spreads['bare_plans']})"
    )
    return "\n".join([*lines, aims_table(found["aims"])])


def note(text: str) -> None:
    print(f"\r\033[K{text}", end="" if sys.stderr.isatty() else "\n", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
