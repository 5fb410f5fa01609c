"""Makes a run of a bundle, so that a policy's training goes on where its checkpoints are no longer there.

The run has what `train action --start` reads of a finished one: autoencoder, text encoder, weights, statistics. Knows
neither data nor losses.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from wavserve.bundle import bundle
from wavserve.bundle.bundle import Bundle
from wavserve.bundle.files import atomic_folder
from wavserve.core.errors import BundleError
from wavserve.core.spec import NormSpec, PolicySpec
from wavserve.models.weights import weights
from wavserve.training import checkpoint
from wavserve.training.checkpoint import About, Checkpoint, Origin
from wavserve.training.job import Job
from wavserve.training.recipe import StageName
from wavserve.training.spec import policy_spec
from wavserve.training.statistics import Statistics
from wavserve.training.vae import load_vae, save_vae

_COMPARED = ("model", "latent", "chunk", "cameras", "state", "action", "embodiment", "max_trained_delay")
"""What a bundle of a recipe has in common with it. Name, notes and the planner's defaults may be others."""
UNPACKED = "bundle "
"""What the data of an unpacked run are called, before the bundle's digest."""


def unpack_bundle(job: Job, folder: Path) -> None:
    """Makes the run `job.run` of a bundle of the recipe. Weights are the bundle's, which has them in 16 bits.

    Raises BundleError when the run exists, or the bundle is damaged, untrained, or of another recipe.
    """
    opened = bundle.load(folder)
    statistics = _statistics(opened.spec)
    _check_recipe(job, opened, statistics)
    vae = load_vae(job.recipe.vae, folder / bundle.VAE)
    origin = f"{UNPACKED}{bundle.digest(folder)}"
    with atomic_folder(job.run) as partial:
        run = replace(job, run=partial)
        autoencoder = _write("vae", run, dict(vae.named_parameters()), {}, Origin("vae", "", origin, 0, ""))
        run.vae_model.mkdir()
        save_vae(vae, run.vae_model, torch.float32, autoencoder.digest)
        learnt = _weights(folder, opened.spec)
        _write("action", run, learnt, statistics.tensors(), Origin("action", "", origin, 0, "", (), autoencoder.digest))
        for part in (bundle.TEXT_ENCODER, bundle.TOKENIZER):
            shutil.copytree(folder / part, run.text / part)
    job.report(f"unpacked: {job.run}")


def _check_recipe(job: Job, opened: Bundle, statistics: Statistics) -> None:
    """Raises BundleError naming the first part of the spec that the recipe's policy has otherwise."""
    expected = policy_spec(job.recipe, statistics)
    for name in _COMPARED:
        if getattr(opened.spec, name) != getattr(expected, name):
            path, ours, theirs = first_difference(name, getattr(expected, name), getattr(opened.spec, name))
            raise BundleError(
                f"{opened.folder}: {path}: expected {ours}, as in the recipe {job.recipe.name}, got {theirs}"
            )


def first_difference(path: str, one: object, other: object) -> tuple[str, object, object]:
    """Of two values that differ: the path of the first part that does, and that part of both."""
    if is_dataclass(one) and type(one) is type(other):
        for name in (each.name for each in fields(one)):
            if (ours := getattr(one, name)) != (theirs := getattr(other, name)):
                return first_difference(f"{path}.{name}", ours, theirs)
    return path, one, other


def _statistics(spec: PolicySpec) -> Statistics:
    """What the bundle's numbers are normalised by. Raises BundleError for a bundle that `train bundle` did not make."""
    value = spec.value_norm
    if spec.untrained or value is None:
        expected = "a policy that `wavserve train bundle` made"
        raise BundleError(f"{spec.name}: expected {expected}, got one that is untrained or has no value_norm")
    (state_low, state_high), (action_low, action_high), (mean, std) = map(
        _both, (spec.state.norm, spec.action.vector.norm, value)
    )
    return Statistics(state_low, state_high, action_low, action_high, mean, std)


def _both(norm: NormSpec) -> tuple[Tensor, Tensor]:
    return torch.tensor(norm.low), torch.tensor(norm.high)


def _weights(folder: Path, spec: PolicySpec) -> dict[str, Tensor]:
    """The transformers' tensors, as a checkpoint of the action stage names them."""
    models = weights.load(folder / bundle.TRANSFORMER, spec.model)
    modules = {"video": models.video, "value": models.value, "action": models.action}
    return {f"{group}.{name}": t for group, module in modules.items() for name, t in module.state_dict().items()}


def _write(
    stage: StageName, job: Job, average: Mapping[str, Tensor], fixed: Mapping[str, Tensor], origin: Origin
) -> Checkpoint:
    """Writes the checkpoint of a finished stage of the recipe, without what only its own training would go on from."""
    tensors = {f"average.{name}": tensor for name, tensor in average.items()}
    tensors |= {f"fixed.{name}": tensor for name, tensor in fixed.items()}
    steps = getattr(job.recipe, stage).optimisation.num_steps
    about = About(replace(origin, recipe=job.recipe.digest(stage)), steps, steps, (), 0.0)
    made = Checkpoint(about, {name: tensor.detach().float().cpu() for name, tensor in tensors.items()})
    (job.run / stage).mkdir(parents=True)
    checkpoint.write(job.run / stage, made)
    return made
