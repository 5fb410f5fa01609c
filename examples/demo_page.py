"""The demo's page: what the robot sent and what the service answered, as one HTML file that needs no network.

Images are data URIs, charts are inline SVG. This module knows only JSON answers, and not how they were requested.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from examples.demo_charts import action_plot, score_plot, spread_plot, stage_bars

STYLE = """
:root { color-scheme: light; --ink: #1d2530; --faint: #66707d; --rule: #e3e6ea; --a: #0b62c4; --b: #c2410c; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: #fff; margin: 2rem auto; max-width: 74rem;
       padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; border-top: 1px solid var(--rule); padding-top: 1.5rem; }
h3 { font-size: .95rem; margin: 1.2rem 0 .3rem; }
p.note, figcaption, .receipt { color: var(--faint); font-size: .85rem; }
.warning { background: #fff4e5; border: 1px solid #f0b775; border-radius: 6px; padding: .6rem .9rem; }
.row { display: flex; flex-wrap: wrap; gap: 14px; align-items: flex-end; } figure { margin: 0; }
img { border-radius: 4px; border: 1px solid var(--rule); } img.frame { width: 180px; } img.imagined { width: 110px; }
svg { max-width: 100%; height: auto; }
svg text { font: 10px system-ui, sans-serif; fill: var(--faint); } svg .grid { stroke: var(--rule); }
svg .plain { fill: #fff; stroke: #8b95a1; } svg .elite { fill: var(--b); }
svg .score { stroke: var(--ink); stroke-width: 2; }
svg .column { fill: #e4eefb; } svg .bar { fill: var(--a); } svg polyline { fill: none; stroke-width: 1.8; }
svg .first { stroke: var(--a); } svg .second { stroke: var(--b); }
.first-key { color: var(--a); } .second-key { color: var(--b); } code { font-size: .85em; overflow-wrap: anywhere; }
"""

UNTRAINED = (
    "<strong>Untrained: seeded random weights.</strong> These plans show that the service works, not that a robot "
    "would succeed: the scores, the imagined frames and the actions carry no meaning. Never run them on a robot."
)
STAGES = '<p class="note">Slices of one plan run in parallel, so the stages add up to more than the total.</p>'


@dataclass(frozen=True, slots=True)
class ShownPlan:
    """One plan: the frames sent (camera -> PNG), the JSON answer, and the seconds that the robot waited."""

    step: int
    frames: Mapping[str, bytes]
    answer: Mapping[str, Any]
    wall_s: float


def render(instruction: str, action_names: Sequence[str], plans: Sequence[ShownPlan]) -> str:
    """The whole page. `plans` are in time order; their answers have the field names of `ActionChunk`."""
    receipt = plans[0].answer["receipt"]
    warning = f'<p class="warning">{UNTRAINED}</p>' if receipt["untrained"] else ""
    intro = (
        f"<p>Policy <code>{escape(receipt['policy'])}</code>, "
        f"digest <code>{escape(receipt['policy_digest'][:16])}</code>, "
        f"wavserve {escape(receipt['version'])}. Instruction: <em>{escape(instruction)}</em></p>"
        f"<p>{len(plans)} plans in one session; between two plans the robot executes the first steps of a chunk.</p>"
    )
    body = "".join(_plan(number, plan, action_names) for number, plan in enumerate(plans, 1))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>wavserve demo</title>'
        f"<style>{STYLE}</style></head><body><h1>From camera frames to planned actions</h1>{warning}{intro}{body}"
        "</body></html>"
    )


def _plan(number: int, plan: ShownPlan, action_names: Sequence[str]) -> str:
    receipt = plan.answer["receipt"]
    frames = [_image("frame", data, camera) for camera, data in plan.frames.items()]
    return "".join(
        [
            f"<h2>Plan {number}, at control step {plan.step}</h2>{_summary(plan)}",
            f'<h3>Camera frames</h3><div class="row">{"".join(frames)}</div>',
            _planning(receipt),
            f"<h3>Time by stage</h3>{stage_bars(list(receipt['stage_ms'].items()))}{STAGES}",
            _actions(plan.answer, action_names),
            _imagined(plan.answer),
        ]
    )


def _summary(plan: ShownPlan) -> str:
    receipt, options = plan.answer["receipt"], plan.answer["receipt"]["planner"]
    facts = {
        "mode": options["mode"],
        "iterations": f"{receipt['iterations_done']} of {options['num_iterations']}",
        "samples": f"{options['num_video_samples']} video x {options['num_value_samples']} value",
        "seed": receipt["seed"],
        "deadline": str(receipt["deadline"]).lower(),
        "waited": f"{plan.wall_s:.2f} s",
    }
    return f'<p class="receipt">{" · ".join(f"{key} {escape(str(value))}" for key, value in facts.items())}</p>'


def _planning(receipt: Mapping[str, Any]) -> str:
    iterations = receipt["iterations"]
    if not iterations:
        return '<h3>Planning</h3><p class="note">No planning iteration was run for this plan.</p>'
    plots = [
        f"<figure>{score_plot(it)}<figcaption>iteration {number}</figcaption></figure>"
        for number, it in enumerate(iterations, 1)
    ]
    spread = spread_plot([it["video_std"] for it in iterations], [it["value_std"] for it in iterations])
    return (
        f'<h3>Scores: every sample of every iteration</h3><div class="row">{"".join(plots)}</div>'
        '<p class="note">A dot is the signal-to-noise ratio of one value sample. The bar is the score of its video '
        'sample. Shaded columns are elite video samples; <span class="second-key">filled dots</span> are elite value '
        "samples.</p><h3>Noise std per iteration</h3>"
        f'{spread}<p class="note"><span class="first-key">video</span>, <span class="second-key">value</span></p>'
    )


def _actions(answer: Mapping[str, Any], names: Sequence[str]) -> str:
    plots = [
        action_plot(name, values) for name, values in zip(names, zip(*answer["actions"], strict=True), strict=True)
    ]
    captioned = (
        f"<figure>{plot}<figcaption>{escape(name)}</figcaption></figure>"
        for name, plot in zip(names, plots, strict=True)
    )
    return f'<h3>The action chunk, {len(answer["actions"])} steps</h3><div class="row">{"".join(captioned)}</div>'


def _imagined(answer: Mapping[str, Any]) -> str:
    rows = []
    for view in answer["imagined"]:
        frames = (base64.b64decode(frame["data"]) for frame in view["frames"])
        images = (_image("imagined", png, f"{view['camera']} +{i}") for i, png in enumerate(frames))
        rows.append(f'<div class="row">{"".join(images)}</div>')
    return f"<h3>Imagined future frames</h3>{''.join(rows)}" if rows else ""


def _image(kind: str, png: bytes, caption: str) -> str:
    data = base64.b64encode(png).decode("ascii")
    label = escape(caption)
    return (
        f'<figure><img class="{kind}" alt="{label}" src="data:image/png;base64,{data}">'
        f"<figcaption>{label}</figcaption></figure>"
    )
