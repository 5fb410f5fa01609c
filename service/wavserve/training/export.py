"""Makes the bundle of a run: the averaged weights of its action stage in 16 bits, its autoencoder, its text encoder.

Knows neither data nor losses.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from wavserve.bundle import bundle
from wavserve.bundle.bundle import Bundle
from wavserve.bundle.files import atomic_folder
from wavserve.core.errors import BundleError
from wavserve.models.golden import add_golden
from wavserve.models.weights import weights
from wavserve.models.weights.weights import Models
from wavserve.training import checkpoint
from wavserve.training.checkpoint import About
from wavserve.training.initial import initial_models
from wavserve.training.job import Job
from wavserve.training.spec import policy_spec
from wavserve.training.statistics import Statistics
from wavserve.training.transformer_stages import check_stages, load_weights
from wavserve.training.unpack import UNPACKED
from wavserve.training.vae import is_saved, load_vae, save_vae

DTYPE = torch.float16
"""of the stored weights. Its mantissa is three bits longer than bfloat16's; weights are far from its limits."""


def make_bundle(job: Job, folder: Path) -> Bundle:
    """Writes the bundle of a run, with its golden plan. An action stage that is not finished gives its present weights.

    Raises BundleError when `folder` exists, the run has no action stage of this recipe, or an earlier stage was
    trained anew.
    """
    found = checkpoint.read(job.run / "action")
    if found is None:
        raise BundleError(f"{job.run / 'action'}: expected a checkpoint, got none; train the stages first")
    if (recipe := job.recipe.digest("action")) != found.about.origin.recipe:
        raise BundleError(f"{job.run / 'action'}: expected recipe {recipe}, got {found.about.origin.recipe}")
    if not is_saved(job.vae_model, job.finished("vae").digest):
        raise BundleError(f"{job.vae_model}: expected the finished autoencoder; run `wavserve train vae` again")
    check_stages(job, found)
    spec = policy_spec(job.recipe, Statistics.of(found.of("fixed")), _notes(job, found.about))
    models = initial_models(spec.model, seed=0)
    load_weights(models, [found])
    with atomic_folder(folder) as partial:
        (partial / bundle.VAE).mkdir()
        save_vae(load_vae(job.recipe.vae, job.vae_model), partial / bundle.VAE, DTYPE)
        for part in (bundle.TEXT_ENCODER, bundle.TOKENIZER):
            shutil.copytree(job.text / part, partial / part)
        halves = Models(models.video.to(DTYPE), models.value.to(DTYPE), models.action.to(DTYPE))
        weights.save(halves, partial / bundle.TRANSFORMER)
        bundle.save_spec(partial, spec)
        add_golden(partial)
    return bundle.load(folder)


def _notes(job: Job, about: About) -> str:
    """The recipe's notes, and what the weights came from."""
    origin = about.origin
    if origin.data.startswith(UNPACKED):
        made = f"unpacked from {origin.data}"
    else:
        episodes = " and ".join(map(str, origin.nums or (origin.num_episodes,)))
        again = f", from the weights {origin.base[:16]} of an earlier run" if origin.autoencoder else ""
        made = (
            f"stage action, step {about.step} of {about.num_steps}{again}, {episodes} episodes; "
            f"recipe {origin.recipe[:16]}, data {origin.data[:16]}"
        )
    return f"{job.recipe.notes} ({made})" if job.recipe.notes else made
