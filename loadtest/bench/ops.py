"""Measures what sessions in Redis, metrics, traces and the live page cost a plan, each on and off, and 64 robots' load.

Every pair of gateways runs at the same time, over a backend that computes nothing, and one robot asks both in turn:
off, on, on, off. What a part costs is the median of the pairs' differences, so that other work on the machine falls on
both. The page has one viewer, and `/metrics` a reader once a second. A user cannot turn metrics off: a gateway
without them has the same calls to them, and they do nothing.

Progress goes to stderr. The output is a table, then one JSON object on the last line.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from loadtest.bench.ops_figures import Pairs, added, load_figures, report, table
from loadtest.bench.ops_gateway import METRICS, PAGE, SESSIONS, TRACING, Gateway, Peers, opened
from loadtest.bench.ops_robots import drive
from wavserve.system.serve_process import raise_on_sigterm

PARTS: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    "sessions": (frozenset({METRICS}), frozenset({METRICS, SESSIONS})),
    "metrics": (frozenset(), frozenset({METRICS})),
    "tracing": (frozenset({METRICS}), frozenset({METRICS, TRACING})),
    "page": (frozenset({METRICS}), frozenset({METRICS, PAGE})),
    "together": (frozenset(), frozenset({METRICS, SESSIONS, TRACING, PAGE})),
}
"""Name -> what the gateway has while the part is off, and while it is on."""
WARM_UP = 10
"""Pairs that do not count."""
SCRAPES = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), default=tuple(PARTS), help="default: all")
    parser.add_argument("--plans", type=int, default=300, help="pairs of plans of each part (default %(default)s)")
    parser.add_argument("--robots", type=int, default=64, help="robots of the load (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each turn of the load (default %(default)s)")
    args = parser.parse_args()
    raise_on_sigterm()
    load = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder, Peers.running(Path(folder)) as peers:
        costs, loads = {}, {}
        for part in args.parts:
            with both(part, peers) as pair:
                costs[part] = compare(part, pair, args.plans)
                if part == "together":
                    loads = load_of(pair, args.robots, args.seconds)
    found = report(costs, loads, args.robots, [load, os.getloadavg()])
    print(table(found))
    print(json.dumps(found))


@contextlib.contextmanager
def both(part: str, peers: Peers) -> Iterator[tuple[Gateway, Gateway]]:
    """The gateways without and with a part, and what reads from them."""
    off, on = PARTS[part]
    note(f"{part}: starting two gateways")
    with opened(f"{part}-off", off, peers) as without, opened(f"{part}-on", on, peers) as having:
        yield without, having


def compare(part: str, pair: tuple[Gateway, Gateway], plans: int) -> dict[str, Any]:
    """What a part costs, from pairs of plans in alternating order."""
    found = Pairs()
    for number in range(WARM_UP + plans):
        if number == WARM_UP:
            for gateway in pair:
                gateway.begin_usage()
        note(f"{part}: {number + 1}/{WARM_UP + plans}")
        seconds = [0.0, 0.0]
        for side in (0, 1) if number % 2 == 0 else (1, 0):
            seconds[side] = pair[side].plan()
        if number >= WARM_UP:
            found.seconds.append((seconds[0], seconds[1]))
    found.cpu_s = (pair[0].cpu_s, pair[1].cpu_s)
    scrapes = [pair[1].scrape() for _ in range(SCRAPES)] if part in ("metrics", "together") else []
    return added(found, scrapes)


def load_of(pair: tuple[Gateway, Gateway], robots: int, seconds: float) -> dict[str, Any]:
    """A gateway's load under robots on streams, without and with all parts, in turns: off, on, on, off."""
    turns: dict[str, list[dict[str, float]]] = {"off": [], "on": []}
    for name in ("off", "on", "on", "off"):
        note(f"{robots} robots: {name}")
        gateway = pair[name == "on"]
        before = gateway.lag()
        gateway.begin_usage()
        times = drive(gateway.service.grpc, robots, seconds)
        turns[name].append(load_figures(times, gateway.cores, before, gateway.lag()))
    return {name: mean_of(each) for name, each in turns.items()}


def mean_of(turns: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: round(sum(turn[key] for turn in turns) / len(turns), 3) for key in turns[0]}


def note(text: str) -> None:
    if sys.stderr.isatty() or not text[-1].isdigit():
        print(f"\r\033[K{text}", end="" if sys.stderr.isatty() else "\n", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
