"""The demo's closed loop: when there is one, and the page of an episode."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from examples.demo_episode import CONFIG, Filmed, obstacle, page, told
from tests.clients.libero.examples import record_of
from wavserve.clients.libero.options import cells_of, read_options

ROOT = Path(__file__).parents[2]
TRAINED = {"name": "tiny-libero", "untrained": False, "embodiment": "libero"}
MP4 = b"\0\0\0 ftypisom"


def filmed(**changes: Any) -> Filmed:
    record = record_of(success=True, num_steps=123, num_plans=31, **changes)
    return Filmed(record, [(0, 1.5), (4, 1.75), (8, 4.0)], MP4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"untrained": True}, "the policy tiny-libero is untrained"),
        ({"embodiment": "piper_dual"}, "the policy tiny-libero is not one of LIBERO's robot"),
    ],
)
def test_another_policy_gets_recorded_frames(change: dict[str, Any], words: str) -> None:
    assert obstacle({**TRAINED, **change}) == words


def test_the_episode_is_one_and_tells_its_values() -> None:
    options = read_options({}, CONFIG)
    [cell] = cells_of(options)
    assert cell.planner["estimate_value"] is True
    assert (len(options.tasks), options.num_trials_per_task, options.videos) == (1, 1, 1)


def test_the_page_has_the_video_and_the_values_and_needs_no_network() -> None:
    html = page(filmed(policy="<b>"))
    [video] = re.findall(r'<video [^>]*src="data:video/mp4;base64,([^"]+)"', html)
    assert base64.b64decode(video) == MP4
    assert re.findall(r"https?://|<script|<link|url\(|<b>", html) == []
    [drawing] = [ET.fromstring(found) for found in re.findall(r"<svg.*?</svg>", html, re.DOTALL)]
    [line] = drawing.findall("polyline")
    points = [tuple(map(float, point.split(","))) for point in str(line.get("points")).split()]
    assert len(points) == 3
    (x0, _), (x1, y1), (x2, y2) = points
    assert x2 - x1 == pytest.approx(x1 - x0, abs=0.2), "control steps go to the right"
    assert y2 < y1, "a higher value is drawn higher"


def test_a_failure_is_told() -> None:
    assert told(filmed()) == "the task is solved after 123 control steps and 31 plans"
    failed = filmed()
    failed = replace(failed, record=replace(failed.record, success=False))
    assert "the task is not solved" in page(failed)


@pytest.mark.system
@pytest.mark.skipif(
    not (ROOT / "policies" / "tiny-libero" / "policy.json").exists(),
    reason="policies/tiny-libero has no trained bundle yet",
)
def test_the_arm_does_the_task_of_the_demo(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "examples.demo", f"--out={tmp_path}"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=900)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "the task is solved after" in ran.stdout
    assert (tmp_path / "demo.mp4").stat().st_size > 10_000
    assert "data:video/mp4" in (tmp_path / "index.html").read_text(encoding="utf-8")
