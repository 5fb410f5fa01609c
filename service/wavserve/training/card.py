"""The model card of a trained policy: one Markdown page, from its bundle, its recipe and the results of its evaluation.

Pure text. Knows neither how a bundle is made nor how results are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wavserve.core.spec import PolicySpec
from wavserve.training.recipe import STAGES, Recipe

_FIRST = (
    "A World-Value-Action policy for the robot of the LIBERO simulator, small enough for a laptop's processor. It was "
    "trained by the stages of the paper ([arXiv 2604.14732](https://arxiv.org/abs/2604.14732)), on demonstrations in "
    "the simulator. It is for trying the service, and for asking what planning does."
)
_LIMITS = (
    "It has only ever seen the simulator. Never run it on a robot.",
    "It knows the instructions of its data and no others. Its text encoder has seeded random weights: it tells these "
    "instructions apart, and understands no language.",
    "Objects were moved by at most 3 cm from where the suite puts them. Nothing is known about other scenes.",
    "Pictures must be rendered and turned as in training; `wavserve libero` does so.",
)


@dataclass(frozen=True, slots=True)
class Success:
    """How often a policy succeeded: a line of the card's table."""

    starts: str
    cell: str
    """a way of planning, or a baseline"""
    planner: str
    rate: str
    """in %, with its interval and the number of episodes"""
    minus_off: str
    """difference to no planning, in points, with its interval; empty: none"""


def card(facts: Mapping[str, Any], spec: PolicySpec, recipe: Recipe, successes: Sequence[Success]) -> str:
    """`facts`: of the bundle, as `bundle.inspect` tells them."""
    sections = {
        "What it is": _table(("", ""), _what(facts, spec)),
        "Data": [f"{spec.notes}. [docs/training.md](../../docs/training.md) says how demonstrations are made."],
        "Recipe": [
            *_table(_STAGE_HEADER, _stages(recipe)),
            "",
            "Sizes and optimisation are in [recipe.toml](recipe.toml), data and order in [train.sh](../train.sh).",
        ],
        "Make it again": [
            f"    policies/train.sh policies/{recipe.name} SUITE FOLDER",
            "",
            "`SUITE` is the suite of its data, and `FOLDER` takes all that is made. The command says first how many "
            "hours it takes.",
        ],
        "Success": _successes(successes, recipe.name),
        "Limits": [f"- {line}" for line in _LIMITS],
        "Golden plan": _golden(str(facts["golden_digest"])),
    }
    lines = [f"# {spec.name}", "", _FIRST, "", "`wavserve train card` writes this page."]
    for title, content in sections.items():
        lines += ["", f"## {title}", "", *content]
    return "\n".join(lines) + "\n"


def _what(facts: Mapping[str, Any], spec: PolicySpec) -> list[tuple[str, str]]:
    parts = facts["parts"]
    parameters = [f"{name} {part['parameters']:,}" for name, part in parts.items() if part["parameters"]]
    cameras = ", ".join(f"{each.name} ({each.height} x {each.width}, {each.orientation})" for each in spec.cameras)
    planner, chunk_s = spec.planner, spec.chunk / spec.control_hz
    delay = f"delays of up to {spec.max_trained_delay} steps" if spec.max_trained_delay else "no delay"
    iterations = f"K={planner.num_iterations}, " if planner.num_iterations else ""
    sampled = f"{iterations}N={planner.num_video_samples}, M={planner.num_value_samples}"
    return [
        ("parameters", ", ".join(parameters)),
        ("size", f"{sum(part['bytes'] for part in parts.values()) / 1e6:.1f} MB"),
        ("digest", f"`{facts['digest']}`"),
        ("sees", f"{cameras}; {', '.join(spec.state.names)}; an instruction"),
        ("commands", ", ".join(spec.action.vector.names)),
        ("a plan", f"{spec.chunk} actions at {spec.control_hz:g} Hz, {chunk_s:g} s"),
        ("planner", f"mode `{planner.mode}` unless a request says otherwise; {sampled}"),
        ("real-time chunking", f"trained with {delay} (`rtc_trained`)"),
        ("embodiment", f"`{spec.embodiment}`"),
    ]


_STAGE_HEADER = ("stage", "steps", "batch", "learning rate")


def _stages(recipe: Recipe) -> list[tuple[str, str, str, str]]:
    found = [(stage, getattr(recipe, stage).optimisation) for stage in STAGES]
    return [(stage, str(o.num_steps), str(o.batch_size), f"{o.learning_rate:g}") for stage, o in found]


def _successes(successes: Sequence[Success], policy: str) -> list[str]:
    if not successes:
        return ["Not measured yet."]
    rows = [(each.starts, each.cell, each.planner, each.rate, each.minus_off) for each in successes]
    note = (
        "In %, with the 95 % interval of Wilson and the number of episodes; differences in points, paired by start and "
        f"seed, with Tango's. `make eval-tiny-libero BUNDLE=policies/{policy} "
        f"STUDY=policies/{policy}/study.toml` measures it. [study.toml](study.toml) "
        "has its starts and seeds. [docs/planning.md](../../docs/planning.md) says what was asked."
    )
    return [*_table(("starts", "cell", "planner", "success", "minus no planning"), rows), "", note]


def _golden(digest: str) -> list[str]:
    if not digest:
        return ["None."]
    return [
        f"Digest `{digest}`. A service makes this plan before it is ready, and serves only if the actions are the "
        "stored ones. [docs/bundles.md](../../docs/bundles.md#the-golden-plan) says how."
    ]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *rows]]
