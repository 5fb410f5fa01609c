"""Lines of a log of `wavserve piper`, as a run writes them, and a file of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

START = {
    "t": 0.0,
    "kind": "start",
    "robot_id": "<b>r</b>",
    "policy": "p&q",
    "digest": "d" * 64,
    "bus": "virtual",
    "dry_run": False,
    "instruction": "<script>alert(1)</script>",
    "version": "0",
    "when": "2026",
    "names": ["<i>j1</i>", "grip"],
    "units": ["rad", "m"],
    "rtc": {"mode": "off"},
    "spans": [4.0, 0.1],
    "max_steps": [0.05, 0.01],
}


def tick(i: int, **changes: Any) -> dict[str, Any]:
    line = {
        "t": i / 30,
        "kind": "tick",
        "at": i / 30,
        "late_ms": 0.1,
        "phase": "ready",
        "hold": "",
        "step": i,
        "source": "chunk",
        "chunk": "c",
        "index": i,
        "command": [0.01 * i, 0.02],
        "measured": [0.01 * i, 0.02],
        "clamped": [],
        "seam": None,
        "starved": False,
    }
    return line | changes


def write(file: Path, lines: list[dict[str, Any]], tail: str = "") -> Path:
    file.write_text("".join(json.dumps(line) + "\n" for line in lines) + tail, encoding="utf-8")
    return file


def chunk_line(**changes: Any) -> dict[str, Any]:
    rows = [[0.01 * i, 0.02] for i in range(54)]
    line = {"t": 0.0, "kind": "chunk", "id": "c", "sequence": 0, "refused": "", "latency_s": 0.2, "actions": rows}
    return line | {"first_step": 0, "step": 0, "frozen": 0} | changes


def example_log(file: Path) -> Path:
    """A run with everything that its page shows: a seam, a hold, a fault, checks, an order."""
    ticks = [tick(i, seam=0.02 if i == 54 else None) for i in range(90)]
    ticks[60:70] = [tick(i, source="hold", starved=True) for i in range(60, 70)]
    check = {"t": 0.0, "kind": "check", "subject": "left", "name": "firmware", "expected": "S-V1.6-3", "is_ok": True}
    checks = [check | {"actual": "S-V1.6-3"}, check | {"name": "feedback", "actual": "12 Hz", "is_ok": False}]
    events = [
        {"t": 0.1, "kind": "order", "order": "arm"},
        {"t": 2.0, "kind": "hold", "why": "link lost", "before": "", "step": 60},
        {"t": 2.5, "kind": "fault", "arm": "left", "faults": ["joint 3 is too hot"]},
    ]
    return write(file, [START, *checks, chunk_line(), *ticks, *events])
