"""The figures and aims of the control benchmark: what thin links and control loops measured, and its report.

Times are in seconds where they are measured and in milliseconds in the figures. Nothing here runs anything.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from loadtest.aims import Aim, at_most
from loadtest.aims import table as aims_table
from loadtest.bench.control_links import Answer, Compared

PRESET = "tiny-piper"
NOMINAL_PERIOD_S = 1 / 30
MAX_ADDED_MS = 1.0
"""The aim for the p50 of what the stream adds to a plan, beyond what unary Plan adds."""
PING_ROBOTS, MAX_PING_MS = 16, 20.0
"""The aim for the p99 of a ping's round trip while so many robots plan."""


@dataclass(frozen=True, slots=True)
class LoopRun:
    """What the processes of robots printed in one turn, and the gateway's processor time."""

    outputs: Sequence[Mapping[str, Any]]
    rest_cores: float
    """while the robots were connected and did nothing: on a stream they ping"""
    gateway_s: float
    """while they worked"""
    wall_s: float


def link_figures(found: Compared) -> dict[str, Any]:
    """The figures of one comparison on thin links, in milliseconds."""
    links = {"stream": found.stream, "unary": found.unary}
    return {
        "answers": {name: len(answers) for name, answers in links.items()},
        "frame_to_chunk": {name: percentiles([a.whole for a in answers]) for name, answers in links.items()},
        "without_plan": {name: percentiles([a.own for a in answers]) for name, answers in links.items()},
        "parts_p50": {name: parts(answers) for name, answers in links.items()},
        "added_p50": round(p50([a.own for a in found.stream]) - p50([a.own for a in found.unary]), 3),
        "pings": len(found.pings),
        "ping": percentiles(found.pings),
    }


def parts(answers: Sequence[Answer]) -> dict[str, float]:
    """The p50 of each part of the way. Robots and service have one clock here."""
    names = ("to_server", "in_server", "from_server", "plan")
    return {name: p50([getattr(answer, name) for answer in answers]) for name in names}


def loop_figures(turns: Sequence[LoopRun]) -> dict[str, Any]:
    """The figures of some turns of control loops. Times are in milliseconds, processor time is per observation.

    Raises RuntimeError when every robot starved.
    """
    outputs = [output for turn in turns for output in turn.outputs]
    periods, chunks = (
        [each for output in outputs for each in output[key]] for key in ("periods_s", "frame_to_chunk_s")
    )
    if not chunks:
        raise RuntimeError("no robot got a second chunk")
    gateway_s, client_s = sum(turn.gateway_s for turn in turns), sum(output["cpu_s"] for output in outputs)
    wall_s, observations = sum(turn.wall_s for turn in turns), len(chunks)
    return {
        "observations": observations,
        "frame_to_chunk": percentiles(chunks),
        "period": percentiles(periods),
        "jitter_p99": round(float(np.percentile(periods, 99)) * 1e3 - NOMINAL_PERIOD_S * 1e3, 2),
        "steps": len(periods),
        "dropped_steps": sum(output["dropped_ticks"] for output in outputs),
        "counts": dict(sum((Counter(output["counts"]) for output in outputs), Counter())),
        "gateway_cpu_per_observation": round(gateway_s * 1e3 / observations, 2),
        "client_cpu_per_observation": round(client_s * 1e3 / observations, 2),
        "gateway_cores": round(gateway_s / wall_s, 3),
        "gateway_cores_at_rest": round(statistics.fmean(turn.rest_cores for turn in turns), 3),
        "client_cores": round(client_s / wall_s, 3),
    }


def report(
    results: Mapping[str, Mapping[str, Any]], sizes: Mapping[str, Any], seconds: float, load: Sequence[Sequence[float]]
) -> dict[str, Any]:
    """The JSON object of the last line. `load`: the machine's load averages before and after."""
    return {
        "bench": "control",
        "policy": f"{PRESET}, planner mode off",
        "seconds": seconds,
        "load_1_5_15_min": {"before": load[0], "after": load[1]},
        "bytes_per_observation": sizes,
        "backends": results,
        "aims": aims_of(results),
    }


def aims_of(results: Mapping[str, Mapping[str, Any]]) -> list[Aim]:
    """What the stream adds, for each backend and number of robots; pings, for each backend."""
    aims = []
    for backend, counts in results.items():
        for robots, found in counts.items():
            name = f"{backend}, {robots} robots: p50 that the stream adds to a plan over unary, ms"
            aims.append(at_most(name, MAX_ADDED_MS, found["links"]["added_p50"]))
        crowd = counts.get(str(PING_ROBOTS))
        name = f"{backend}, {PING_ROBOTS} robots: p99 of a ping while plans run, ms"
        aims.append(at_most(name, MAX_PING_MS, None if crowd is None else crowd["links"]["ping"]["p99"]))
    return aims


def table(found: Mapping[str, Any]) -> str:
    """The figures as text, one line per backend, number of robots and link; then bytes and aims."""
    columns = "backend          robots link     frame to chunk p50  p99   loops p50   p99  jitter p99  gateway  client"
    lines = [f"{columns}   (ms; processor ms per observation)"]
    for backend, counts in found["backends"].items():
        for robots, of in counts.items():
            for link, over in (("stream", "control"), ("unary", "unary")):
                asked, loop = of["links"]["frame_to_chunk"][link], of["loops"][over]
                looped = loop["frame_to_chunk"]
                lines.append(
                    f"{backend:<16} {robots:>6} {link:<8} {asked['p50']:18.1f} {asked['p99']:6.1f} "
                    f"{looped['p50']:9.1f} {looped['p99']:6.1f} {loop['jitter_p99']:10.1f} "
                    f"{loop['gateway_cpu_per_observation']:8.1f} {loop['client_cpu_per_observation']:7.1f}"
                )
    for size, of in found["bytes_per_observation"].items():
        lines.append(f"bytes of an observation, {size}: JPEG {of['jpeg']}, raw {of['raw']} ({of['raw_over_jpeg']} x)")
    return "\n".join([*lines, aims_table(found["aims"])])


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """p50 and p99 in milliseconds."""
    low, high = np.percentile(seconds, [50, 99]) * 1e3
    return {"p50": round(float(low), 2), "p99": round(float(high), 2)}


def p50(seconds: Sequence[float]) -> float:
    """The median in milliseconds."""
    return round(float(np.median(seconds)) * 1e3, 3)
