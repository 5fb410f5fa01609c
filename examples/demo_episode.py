"""The closed loop of `make demo`: in the LIBERO simulator an arm does a task by a service's plans, and is filmed.

Runs `wavserve libero` as a person would. Knows the service by its URL only.
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from examples.demo_charts import Frame, around, axes, curve, svg
from examples.demo_page import STYLE
from wavserve.clients.libero.records import EpisodeRecord
from wavserve.clients.libero.report.recording import Recording
from wavserve.clients.libero.results import load_run
from wavserve.core.errors import SimulationUnavailable
from wavserve.simulation.config import renderer_of
from wavserve.simulation.requirements import check_packages, check_renderer

CONFIG = Path(__file__).parent / "demo.toml"
VIDEO, RESULTS = "demo.mp4", "libero"


@dataclass(frozen=True, slots=True)
class Filmed:
    """An episode that was run, and its video."""

    record: EpisodeRecord
    values: Sequence[tuple[float, float]]
    """control step and predicted value of each plan"""
    video: bytes
    """MP4"""


def obstacle(policy: Mapping[str, Any]) -> str:
    """Why there is no closed loop with this policy on this machine, in words; empty: nothing is in the way."""
    if policy["untrained"]:
        return f"the policy {policy['name']} is untrained"
    if policy["embodiment"] != "libero":
        return f"the policy {policy['name']} is not one of LIBERO's robot"
    try:
        check_packages()
        check_renderer(renderer_of(os.environ))
    except SimulationUnavailable as error:
        return error.message
    return ""


def film(url: str, out: Path) -> Filmed:
    """Runs the episode at a service. Its video goes to `out`, its results and report to `out / RESULTS`, instead of an
    earlier demo's. Raises RuntimeError when that fails."""
    folder = out / RESULTS
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "wavserve.cli", "libero", "--config", str(CONFIG), "--out", str(folder)]
    ran = subprocess.run([*command, "--transport", "http", "--service", url], stdout=subprocess.DEVNULL, check=False)
    if ran.returncode:
        raise RuntimeError(f"wavserve libero ended with code {ran.returncode}; it says why above")
    [record] = load_run(folder).records
    recording = Recording.load(record.key.states_file(folder))
    [video] = folder.glob("report/videos/*.mp4")
    shutil.copyfile(video, out / VIDEO)
    values = zip(recording.plan_steps.tolist(), recording.values.tolist(), strict=True)
    return Filmed(record, list(values), (out / VIDEO).read_bytes())


def told(filmed: Filmed) -> str:
    """How the episode ended."""
    record = filmed.record
    end = "the task is solved" if record.success else "the task is not solved"
    return f"{end} after {record.num_steps} control steps and {record.num_plans} plans"


def page(filmed: Filmed) -> str:
    """The page, as one file that needs no network."""
    record = filmed.record
    video = base64.b64encode(filmed.video).decode("ascii")
    plan_ms = record.wall.get("plan_ms_p50", 0.0)
    facts = (
        f"<p>Policy <code>{escape(record.policy)}</code>, digest <code>{escape(record.policy_digest[:16])}</code>. "
        f"Task: <em>{escape(record.task_name.replace('_', ' '))}</em></p>"
        f"<p>In the LIBERO simulator, {told(filmed)}. A plan took {plan_ms:.0f} ms (median); the robot executed "
        f"{record.replan_steps} of its actions before the next one.</p>"
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>wavserve demo</title>'
        f"<style>{STYLE} video {{ max-width: 100%; }}</style></head><body><h1>An arm that plans</h1>{facts}"
        '<video aria-label="the arm doing the task" controls autoplay muted loop '
        f'src="data:video/mp4;base64,{video}"></video>'
        '<p class="note">Left: the camera at the table, with the way of the gripper so far and the planned one. Right: '
        "the camera at the wrist. Below: the predicted value of each plan, the way from above, and its height.</p>"
        f"<h2>The predicted value of each plan</h2>{_values(filmed)}"
        '<p class="note">What the value model predicts of each plan: its return, at most 1, where the policy declares '
        "its units; else the score of the planner's mode.</p>"
        "</body></html>"
    )


def _values(filmed: Filmed) -> str:
    low, high = around([value for _, value in filmed.values])
    frame = Frame(720, 220, 0, max(filmed.record.num_steps, 1), low, high)
    ticks = range(0, filmed.record.num_steps + 1, 20)
    return svg(frame, "predicted value", axes(frame, "control step", ticks), curve("first", frame, filmed.values))
