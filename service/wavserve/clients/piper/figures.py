"""The figures of a run, from the lines of its log. Pure; knows no page and no terminal."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wavserve.clients.piper.log import rotated
from wavserve.core.errors import InvalidRequest
from wavserve.core.texts import counted

Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """The lines of a run by kind, in order, and what could not be read."""

    start: Line
    """names, units, limits"""
    lines: Sequence[Line]
    num_unreadable: int

    def of(self, *kinds: str) -> list[Line]:
        return [line for line in self.lines if line["kind"] in kinds]


@dataclass(frozen=True, slots=True)
class Figures:
    """Of the last run in a log."""

    duration_s: float
    num_ticks: int
    period_ms: tuple[float, float, float]
    """p50, p99, largest"""
    num_dropped_ticks: int
    num_armed: int
    """steps with a command"""
    num_executed: int
    """of them, with an action of a chunk"""
    num_like_chunk: int
    """of those, within 1 % of the axis's range of what the chunk says"""
    num_clamped: int
    num_chunks: int
    num_refused_chunks: int
    latency_s: tuple[float, float]
    """p50, p95; NaN without a chunk"""
    num_holds: int
    num_pauses: int
    seam_jumps: tuple[int, float, float]
    """count, p50 and largest, in fractions of an axis's range"""
    largest_step: float
    """change of a command, in fractions of what one step may change"""
    rtc_mode: str
    num_continued: int
    """played chunks that continue a left-over"""
    num_late: int
    """of them, those that came after more steps than their delay"""
    num_faults: int
    num_stops: int
    num_lost_lines: int


def read(file: Path) -> Run:
    """The last run in a log and its rotated files. Raises InvalidRequest when there is none."""
    lines: list[Line] = []
    num_bad = 0
    number = 0
    files = []
    while (path := rotated(file, number)).exists():
        files.append(path)
        number += 1
    if not files:
        raise InvalidRequest(
            str(file), "a log of `wavserve piper`, which is written once all checks are green", "no file"
        )
    for path in reversed(files):
        for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:  # such as the last line, when the disk was full
                num_bad += 1
                continue
            if isinstance(line, dict) and isinstance(line.get("kind"), str):
                lines.append(line)
            else:
                num_bad += 1
    starts = [i for i, line in enumerate(lines) if line["kind"] == "start"]
    if not starts:
        raise InvalidRequest(str(file), "a log of `wavserve piper`", f"{len(lines)} lines of a log, and no start")
    return Run(lines[starts[-1]], lines[starts[-1] + 1 :], num_bad)


def figures(run: Run) -> Figures:
    ticks = run.of("tick")
    at = np.array([tick["at"] for tick in ticks])
    periods = np.diff(at) * 1e3
    armed = [tick for tick in ticks if tick["command"] is not None]
    played = [tick for tick in armed if tick["source"] != "hold"]
    chunks = run.of("chunk")
    latencies = np.array([chunk["latency_s"] for chunk in chunks if chunk["latency_s"] is not None], dtype=float)
    seams = np.array([tick["seam"] for tick in ticks if tick["seam"] is not None], dtype=float)
    end = run.of("end")
    continued = _continued(run, chunks)
    return Figures(
        duration_s=float(at[-1] - at[0]) if len(at) else 0.0,
        num_ticks=len(ticks),
        period_ms=(_percentile(periods, 50), _percentile(periods, 99), float(np.max(periods, initial=0.0))),
        num_dropped_ticks=end[-1]["dropped_ticks"] if end else 0,
        num_armed=len(armed),
        num_executed=len(played),
        num_like_chunk=_like_chunk(played, chunks, np.array(run.start["spans"])),
        num_clamped=sum(bool(tick["clamped"]) for tick in played),
        num_chunks=sum(not chunk["refused"] for chunk in chunks),
        num_refused_chunks=sum(bool(chunk["refused"]) for chunk in chunks),
        latency_s=(_percentile(latencies, 50), _percentile(latencies, 95)),
        num_holds=sum(bool(hold["why"]) and not hold["before"] for hold in run.of("hold")),
        num_pauses=sum(bool(b["starved"]) and not a["starved"] for a, b in itertools.pairwise(ticks)),
        seam_jumps=(len(seams), _percentile(seams, 50), float(np.max(seams, initial=0.0))),
        largest_step=_largest_step(ticks, np.array(run.start["max_steps"])),
        rtc_mode=run.start["rtc"]["mode"],
        num_continued=len(continued),
        num_late=sum(chunk["step"] - chunk["first_step"] > chunk["frozen"] for chunk in continued),
        num_faults=len(run.of("fault")),
        num_stops=len(run.of("emergency_stop", "fault")),  # a fault stops its arm
        num_lost_lines=sum(line["lines"] for line in run.of("log_dropped")) + run.num_unreadable,
    )


def rows(each: Figures) -> list[tuple[str, str]]:
    """The figures in words, for the terminal and the page."""
    return [
        ("duration", f"{each.duration_s:.1f} s, {counted(each.num_ticks, 'tick')}, {each.num_dropped_ticks} dropped"),
        ("period", _told("p50 {:.2f} ms, p99 {:.2f} ms, longest {:.2f} ms", each.period_ms)),
        (
            "steps",
            f"{each.num_executed} of {each.num_armed} from chunks ({_percent(each.num_executed, each.num_armed)}), "
            f"{_percent(each.num_like_chunk, each.num_executed)} of them within 1 % of the chunk",
        ),
        (
            "clamped",
            f"{counted(each.num_clamped, 'step')}; the largest step is {each.largest_step:.0%} of what is allowed",
        ),
        ("holds", f"{each.num_holds}, and {counted(each.num_pauses, 'pause')} for lack of a chunk"),
        ("seams", _seams(each)),
        ("chunks", f"{each.num_chunks} played, {each.num_refused_chunks} refused, latency {_latency(each)}"),
        ("real-time chunking", _rtc(each)),
        ("faults", f"{counted(each.num_faults, 'fault')}, {counted(each.num_stops, 'emergency stop')}"),
        ("log", f"{counted(each.num_lost_lines, 'line')} lost"),
    ]


def _told(form: str, values: Sequence[float]) -> str:
    """The values in a form; none where there was nothing to measure."""
    return "none" if any(map(math.isnan, values)) else form.format(*values)


def _seams(each: Figures) -> str:
    number, *jumps = each.seam_jumps
    jump = _told("p50 {:.3%}, largest {:.3%} of the axis's range", jumps)
    return f"{counted(number, 'change')} of chunks, jump {jump}"


def _latency(each: Figures) -> str:
    return _told("p50 {:.0f} ms, p95 {:.0f} ms", [seconds * 1e3 for seconds in each.latency_s])


def _rtc(each: Figures) -> str:
    if each.rtc_mode == "off":
        return "off"
    continued = f"{each.num_continued} of {counted(each.num_chunks, 'played chunk')} continue the one before"
    return f"{each.rtc_mode}: {continued}, {each.num_late} of them came later than expected"


def _like_chunk(played: Sequence[Line], chunks: Iterable[Line], spans: NDArray[Any]) -> int:
    actions = {chunk["id"]: np.array(chunk["actions"]) for chunk in chunks if not chunk["refused"]}
    near = 0
    for tick in played:
        rows = actions.get(tick["chunk"])
        if rows is not None and tick["index"] < len(rows):
            near += bool(np.max(np.abs(rows[tick["index"]] - np.array(tick["command"])) / spans) <= 0.01)
    return near


def _continued(run: Run, chunks: Iterable[Line]) -> list[Line]:
    """The played chunks whose observations had a left-over."""
    asked = {line["sequence"] for line in run.of("asked") if line["left_over"]}
    return [chunk for chunk in chunks if not chunk["refused"] and chunk["sequence"] in asked]


def _largest_step(ticks: Sequence[Line], max_steps: NDArray[Any]) -> float:
    largest = 0.0
    for a, b in itertools.pairwise(ticks):
        if a["command"] is not None and b["command"] is not None:
            change = np.abs(np.array(b["command"]) - np.array(a["command"]))
            largest = max(largest, float(np.max(change / max_steps)))
    return largest


def _percentile(values: NDArray[Any], percent: float) -> float:
    return float(np.percentile(values, percent)) if len(values) else math.nan


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "none"
