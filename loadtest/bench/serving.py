"""Ours against a server that makes one plan at a time: the same bundle, edges and robots, taking turns in one run.

Run by `make bench-serving`. `serial-plain` is the authors' way: a lock, and the plain path; `serial-fast` is the lock
around our own policy, on the same backend as ours: the embedded Triton where one can run, as the service has it.
Robots ask in a closed loop without a pause, over gRPC. A turn's throughput is every plan begun in it over the time
until the last is answered; figures are medians over turns. Progress goes to stderr; a table and then one JSON object,
on the last line, to stdout.
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

from loadtest.bench.subjects import REPOSITORY, Subject, on_local
from loadtest.robots import figures
from loadtest.robots.frames import Frames
from loadtest.robots.journal import Journal
from loadtest.robots.robot import Identity, Robot, Shift, WallClock
from loadtest.robots.scenario import RobotGroup
from loadtest.robots.turns import FreeTurns
from loadtest.robots.wires import GrpcWire
from wavserve.backends.triton.server import why_not
from wavserve.bundle.bundle import Bundle
from wavserve.models.weights import presets
from wavserve.system import serve_process

BACKENDS = ("triton-embedded", "local")
ROBOTS = (1, 2, 4, 8)
SERIAL = (sys.executable, "-m", "loadtest.bench.serial_service")
DEADLINE_PLANS = 4.0
"""The deadline of the second pass, in plans of a lone robot of ours."""
AIMS = (
    ("planned", 8, "serial-plain", 2.5),
    ("planned", 8, "serial-fast", 1.2),
    ("off", 8, "serial-fast", 2.0),
)
"""Pass, robots, against whom, and how many times its throughput ours should be."""
LONE_TURNS = 4
"""Ours with a lone robot has turns so many times as long: a p99 wants plans."""
BARE_PLANS = 20
"""in each turn"""


@dataclass(frozen=True, slots=True)
class Pass:
    """One way of asking."""

    name: str
    options: Mapping[str, str]
    deadline: bool = False


PASSES = (Pass("planned", {}), Pass("deadline", {}, deadline=True), Pass("off", {"mode": "off"}))


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn of one server came to."""

    plans_per_s: float
    seconds: tuple[float, ...]
    """of every plan that was answered"""
    hits: float
    """share of asks answered in time"""
    rounds: float
    """K spent, on average"""


@dataclass(slots=True)
class Bench:
    """A comparison under way."""

    servers: Mapping[str, serve_process.Child]
    seconds: float
    turns: int
    found: dict[tuple[str, int, str], list[Turn]] = field(default_factory=dict)
    identity: list[float] = field(default_factory=list)
    """seconds of backend calls in each plan made in this process"""
    frames: Frames = field(default_factory=Frames.recorded)

    async def run(self, subject: Subject) -> None:
        """Every pass; the identity backend has its turn where a lone robot has."""
        for one in PASSES:
            for turn in range(self.turns):
                for robots in ROBOTS:
                    for name in self.servers:
                        done = await self._turn(one, robots, name)
                        self.found.setdefault((one.name, robots, name), []).append(done)
                        self._tell(one, turn, robots, name, done)
                    if robots == 1 and one.name == "planned":
                        await self._alone(subject)
        note("")

    async def _turn(self, one: Pass, robots: int, name: str) -> Turn:
        deadline_ms = round(DEADLINE_PLANS * self.lone_s() * 1e3) if one.deadline else None
        stretch = LONE_TURNS if (one.name, robots, name) == ("planned", 1, "ours") else 1
        group = RobotGroup(edge="grpc", executed=0, replan_at=0, planner=one.options)
        journal, began = Journal(), time.monotonic()
        async with _wires(self.servers[name], robots) as wires:
            working = []
            for number, wire in enumerate(wires):
                robot = Robot(Identity(f"{number}", "bench", group, number), self.frames, journal, WallClock())
                working.append(
                    robot.work(Shift("turn", began + stretch * self.seconds, FreeTurns(), wire, deadline_ms))
                )
            await asyncio.gather(*working)
        return summed(journal, began)

    def lone_s(self) -> float:
        """The median plan of a lone robot of ours, without a deadline."""
        return statistics.median(s for turn in self.found["planned", 1, "ours"] for s in turn.seconds)

    async def _alone(self, subject: Subject) -> None:
        """The same plans on the backend alone: how much of a plan's spread is the machine's."""
        for number in range(BARE_PLANS):
            subject.timed.calls.clear()
            await subject.plan(number)
            self.identity.append(sum(seconds for _, seconds in subject.timed.calls))

    def _tell(self, one: Pass, turn: int, robots: int, name: str, done: Turn) -> None:
        note(f"{one.name} turn {turn + 1}/{self.turns} {robots} robots {name}: {done.plans_per_s:.2f} plans/s")


@contextlib.asynccontextmanager
async def _wires(server: serve_process.Child, count: int) -> AsyncIterator[list[GrpcWire]]:
    wires = [GrpcWire(server.grpc) for _ in range(count)]
    try:
        yield wires
    finally:
        await asyncio.gather(*(wire.close() for wire in wires))


def summed(journal: Journal, began: float) -> Turn:
    """Raises RuntimeError when a plan failed otherwise than by its deadline: then nothing is compared.

    A plan that was refused is one that was not answered in time.
    """
    wrong = [ask for ask in journal.asks if ask.outcome not in ("answered", "missed", "refused") or ask.faults]
    if wrong:
        raise RuntimeError(f"{wrong[0].outcome}: {wrong[0].words} {' '.join(wrong[0].faults)}")
    done = figures.answered(journal.asks)
    rounds = [ask.reply.iterations_done for ask in done if ask.reply is not None]
    return Turn(
        plans_per_s=len(done) / (max(ask.ended for ask in journal.asks) - began),
        seconds=tuple(ask.seconds for ask in done),
        hits=len(figures.in_time(done)) / len(journal.asks),
        rounds=float(np.mean(rounds)) if rounds else 0.0,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=BACKENDS, help="of ours and of serial-fast (default: the service's own)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each turn (default %(default)s)")
    parser.add_argument("--turns", type=int, default=3, help="of each server, pass and count (default %(default)s)")
    parser.add_argument("--one-backend", action="store_true", help="leave out ours on the other backend")
    args = parser.parse_args()
    serve_process.end_with_us()
    runnable = BACKENDS if why_not(REPOSITORY) is None else BACKENDS[1:]
    backend = args.backend or runnable[0]
    with tempfile.TemporaryDirectory() as folder:
        tiny = presets.create("tiny", Path(folder) / "tiny")
        with started(Path(folder), tiny, backend, () if args.one_backend else runnable) as servers:
            bench = Bench(servers, args.seconds, args.turns)
            asyncio.run(compare(bench, tiny))
    told = told_of(bench, backend)
    print(table(told))
    print(json.dumps(told))


async def compare(bench: Bench, tiny: Bundle) -> None:
    async with on_local(tiny) as subject:
        await subject.plan(0)
        await bench.run(subject)


@contextlib.contextmanager
def started(
    folder: Path, tiny: Bundle, backend: str, others: Sequence[str]
) -> Iterator[Mapping[str, serve_process.Child]]:
    """All servers at once; those that wait for their turn do nothing."""
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


def told_of(bench: Bench, backend: str) -> dict[str, Any]:
    """The figures."""
    passes: dict[str, dict[str, Any]] = {one.name: {} for one in PASSES}
    for (name, robots, server), turns in bench.found.items():
        passes[name].setdefault(str(robots), {})[server] = medians(turns)
    aims = []
    for name, robots, other, aim in AIMS:
        over = ratio(passes, name, robots, other)
        aims.append({"pass": name, "robots": robots, "against": other, "aim": aim, "ratio": over, "ok": over >= aim})
    lone = [s for turn in bench.found["planned", 1, "ours"] for s in turn.seconds]
    return {
        "bench": "serving",
        "backend": backend,
        "turns": bench.turns,
        "turn_s": bench.seconds,
        "deadline_ms": round(DEADLINE_PLANS * bench.lone_s() * 1e3),
        "passes": passes,
        "aims": aims,
        "p99_over_p50": {
            "plan_of_a_lone_robot": spread(lone),
            "plans": len(lone),
            "bare_backend": spread(bench.identity),
            "bare_plans": len(bench.identity),
        },
        "bare_backend_p50_ms": round(float(np.median(bench.identity)) * 1e3, 1),
    }


def medians(turns: Sequence[Turn]) -> dict[str, float | None]:
    """Of a server's turns: the median of rates and shares; percentiles of all their plans, None of none."""
    every = [seconds * 1e3 for turn in turns for seconds in turn.seconds]
    p50, p99 = (round(float(each), 1) for each in np.percentile(every, [50, 99])) if every else (None, None)
    return {
        "plans_per_s": round(statistics.median(turn.plans_per_s for turn in turns), 3),
        "p50_ms": p50,
        "p99_ms": p99,
        "in_time": round(statistics.median(turn.hits for turn in turns), 3),
        "rounds": round(statistics.median(turn.rounds for turn in turns), 2),
    }


def ratio(passes: Mapping[str, Mapping[str, Any]], name: str, robots: int, other: str) -> float:
    """Throughput of ours over another's."""
    of = passes[name][str(robots)]
    return round(float(of["ours"]["plans_per_s"] / of[other]["plans_per_s"]), 2)


def spread(seconds: Sequence[float]) -> float:
    p50, p99 = np.percentile(seconds, [50, 99])
    return round(float(p99 / p50), 3)


def table(told: Mapping[str, Any]) -> str:
    """The figures as text, a line each."""
    lines = [f"{'pass':<9} robots {'server':<20} plans/s   p50 ms   p99 ms  in time    K   ours over it"]
    for name, counts in told["passes"].items():
        for robots, servers in counts.items():
            for server, of in servers.items():
                over = servers["ours"]["plans_per_s"] / of["plans_per_s"] if of["plans_per_s"] else float("inf")
                p50, p99 = ("-" if of[key] is None else f"{of[key]:.0f}" for key in ("p50_ms", "p99_ms"))
                lines.append(
                    f"{name:<9} {robots:>6} {server:<20} {of['plans_per_s']:7.2f} {p50:>8} "
                    f"{p99:>8} {of['in_time']:8.0%} {of['rounds']:4.1f}   {over:.2f}"
                )
    for aim in told["aims"]:
        words = f"{aim['pass']}, {aim['robots']} robots, over {aim['against']}"
        lines.append(f"{words}: {aim['ratio']:.2f}, aim {aim['aim']}, {'met' if aim['ok'] else 'NOT MET'}")
    spreads = told["p99_over_p50"]
    lines.append(
        f"p99/p50: lone robot {spreads['plan_of_a_lone_robot']} ({spreads['plans']} plans), identity backend "
        f"{spreads['bare_backend']} ({spreads['bare_plans']})"
    )
    return "\n".join(lines)


def note(words: str) -> None:
    print(f"\r\033[K{words}", end="" if sys.stderr.isatty() else "\n", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
