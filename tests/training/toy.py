"""A recipe that trains in seconds, and a data set for it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tests.training import synthetic
from wavserve.training.episode import Kind
from wavserve.training.job import Job
from wavserve.training.recipe import (
    STAGES,
    ActionRecipe,
    Optimisation,
    PlannerRecipe,
    Recipe,
    StageName,
    VaeRecipe,
    ValueRecipe,
    VideoRecipe,
)
from wavserve.training.stages import train_stage

_KINDS: tuple[Kind, ...] = ("expert", "failure", "expert", "expert")


def optimisation(num_steps: int = 40, batch_size: int = 4) -> Optimisation:
    return Optimisation(num_steps=num_steps, batch_size=batch_size, learning_rate=2e-3, warmup_steps=5)


def toy_recipe(num_steps: int = 40) -> Recipe:
    return Recipe(
        name="toy",
        vae=VaeRecipe(
            optimisation=optimisation(num_steps, batch_size=2),
            latent_channels=8,
            encoder_blocks=(8, 8, 8, 8),
            decoder_blocks=(8, 8, 8, 8),
            clip_batch_size=1,
        ),
        video=VideoRecipe(optimisation=optimisation(num_steps), num_layers=2, num_heads=2, head_dim=16),
        value=ValueRecipe(optimisation=optimisation(num_steps), num_heads=2, head_dim=16),
        action=ActionRecipe(optimisation=optimisation(num_steps), num_heads=2, head_dim=16, max_delay=3),
        planner=PlannerRecipe(num_iterations=1, num_video_samples=4, num_value_samples=2),
        held_out_every=4,
        evaluate_every=20,
    )


def longer(recipe: Recipe, stage: StageName, num_steps: int) -> Recipe:
    """The recipe with another number of steps in one stage."""
    own = getattr(recipe, stage)
    optimised = replace(own.optimisation, num_steps=num_steps)
    return replace(recipe, **{stage: replace(own, optimisation=optimised)})


def write_recipe(path: Path, recipe: Recipe) -> Path:
    """The recipe as a TOML file."""
    path.write_text("\n".join(_toml(asdict(recipe), "")))
    return path


def _toml(table: dict[str, Any], path: str) -> list[str]:
    """Entries of a table, then its inner tables. JSON's texts, numbers and lists are TOML's too."""
    inner = {name: value for name, value in table.items() if isinstance(value, dict)}
    lines = [f"{name} = {json.dumps(value)}" for name, value in table.items() if name not in inner]
    for name, value in inner.items():
        lines += [f"[{path}{name}]", *_toml(value, f"{path}{name}.")]
    return lines


def toy_data(folder: Path, per_task: int = 4, seed: int = 0) -> Path:
    synthetic.write(
        folder, per_task=per_task, size=128, seed=seed, num_steps=24, kinds=("expert", "failure", "expert", "expert")
    )
    return folder


def toy_job(recipe: Recipe, data: Path, run: Path, **options: object) -> Job:
    said: list[str] = []
    return Job(recipe=recipe, run=run, report=said.append, data=(data,), **options)  # type: ignore[arg-type]


def train_all(job: Job, stages: tuple[StageName, ...] = STAGES) -> None:
    for stage in stages:
        train_stage(stage, job)
