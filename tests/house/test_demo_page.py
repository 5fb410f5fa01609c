"""The demo's page for an example answer, and the error when the demo's service does not start."""

from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from examples.demo import started
from examples.demo_page import ShownPlan, render
from wavserve.core.charts import round_numbers

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"  # one red pixel
)
NAMES = ("x", "y", "gripper")
NUM_VIDEO, NUM_VALUE = 4, 2


def example_iteration() -> dict[str, Any]:
    snr = [[0.5 * n - 1.0, 0.25 * n] for n in range(NUM_VIDEO)]
    return {
        "snr": snr,
        "scores": [max(row) for row in snr],
        "video_elites": [3, 2],
        "value_elites": [7, 5],
        "video_std": 0.9,
        "value_std": 0.8,
    }


def example_answer(num_iterations: int = 2, untrained: bool = True, imagined: int = 0) -> dict[str, Any]:
    frames = [{"camera": "wrist", "encoding": "png", "data": base64.b64encode(PNG).decode()}] * imagined
    return {
        "session_id": "s",
        "horizon": 3,
        "action_dim": len(NAMES),
        "first_control_step": 8,
        "actions": [[0.0, 0.5, 1.0], [0.1, 0.4, 1.0], [0.2, 0.3, 1.0]],
        "imagined": [{"camera": "wrist", "frames": frames}] if imagined else [],
        "receipt": {
            "policy": "tiny",
            "policy_digest": "0123456789abcdef0123456789abcdef",
            "untrained": untrained,
            "seed": 7,
            "deadline": "none",
            "version": "0.1.0",
            "planner": {
                "mode": "paper",
                "num_iterations": num_iterations,
                "num_video_samples": NUM_VIDEO,
                "num_value_samples": NUM_VALUE,
            },
            "iterations_done": num_iterations,
            "iterations": [example_iteration() for _ in range(num_iterations)],
            "stage_ms": {"encode": 3.0, "imagine": 120.5, "decode": 40.0},
        },
    }


def page(answer: dict[str, Any] | None = None, instruction: str = "pick it up") -> str:
    frames = {"agentview": PNG, "wrist": PNG}
    return render(instruction, NAMES, [ShownPlan(8, frames, answer or example_answer(), 1.25)])


def drawings(html: str) -> list[ET.Element]:
    return [ET.fromstring(found) for found in re.findall(r"<svg.*?</svg>", html, re.DOTALL)]


def test_the_page_has_a_chart_for_every_iteration_and_action() -> None:
    labels = [drawing.get("aria-label") for drawing in drawings(page())]
    assert labels == [
        *["SNR of every value sample by video sample"] * 2,
        "noise std per iteration",
        "time by stage",
        *[f"action {name}" for name in NAMES],
    ]


def test_every_sample_is_a_dot_and_the_elites_are_marked() -> None:
    scores = drawings(page())[0]
    assert len(scores.findall("circle")) == NUM_VIDEO * NUM_VALUE
    assert len(scores.findall("rect[@class='column']")) == 2
    assert len(scores.findall("line[@class='score']")) == NUM_VIDEO
    elites = [dot.findtext("title") or "" for dot in scores.findall("circle[@class='elite']")]
    assert [title.split(" SNR")[0] for title in elites] == ["n=2 m=1", "n=3 m=1"]


def test_a_higher_score_is_drawn_higher() -> None:
    bars = drawings(page())[0].findall("line[@class='score']")
    heights = [float(bar.get("y1") or "nan") for bar in bars]
    assert heights == sorted(heights, reverse=True)
    assert len(set(heights)) == NUM_VIDEO


def test_the_page_needs_no_network() -> None:
    html = page(example_answer(imagined=3))
    assert re.findall(r"https?://|<script|<link|url\(", html) == []
    assert html.count('src="data:image/png;base64,') == 2 + 3


@pytest.mark.parametrize("untrained", [True, False])
def test_the_page_warns_of_untrained_weights(untrained: bool) -> None:
    assert ("Never run them on a robot" in page(example_answer(untrained=untrained))) is untrained


def test_a_plan_without_iterations_is_shown_as_one() -> None:
    html = page(example_answer(num_iterations=0))
    assert "No planning iteration was run" in html
    assert len(drawings(html)) == 1 + len(NAMES)


def test_texts_are_escaped() -> None:
    assert "<script>" not in page(instruction="<script>alert(1)</script>")


def test_the_error_of_a_service_that_does_not_start_is_shown(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)exited with code 1.*bundle\.preset: expected 'auto'"):
        started(tmp_path / "server.log", ["--set", "bundle.preset=none-such"])


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.24, 1.08, [0.0, 0.5, 1.0]),
        (0.0, 4.0, [0.0, 1.0, 2.0, 3.0, 4.0]),
        (0.0112, 0.0188, [0.012, 0.014, 0.016, 0.018]),
        (-3050.0, -2950.0, [-3050.0, -3000.0, -2950.0]),
        (-1e-9, 1e-9, [-1e-9, -5e-10, 0.0, 5e-10, 1e-9]),
    ],
)
def test_an_axis_has_round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert round_numbers(high, low, 4) == pytest.approx(expected, rel=1e-9, abs=1e-15)
