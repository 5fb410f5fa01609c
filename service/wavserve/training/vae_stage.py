"""The stage of the autoencoder: its objective on a data set, and the finished autoencoder with its statistics.

Knows neither the loop nor the transformers.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping

import torch
from torch import Tensor

from wavserve.bundle.files import atomic_folder
from wavserve.core.errors import BundleError
from wavserve.core.libero import CAMERAS
from wavserve.training.checkpoint import required
from wavserve.training.frames import encode_frames
from wavserve.training.initial import initialise
from wavserve.training.job import Job
from wavserve.training.pictures import Pictures
from wavserve.training.readout import Readout
from wavserve.training.recipe import StageName
from wavserve.training.source import Source
from wavserve.training.vae import initial_vae, is_saved, save_vae
from wavserve.training.vae_loss import Scales, VaeObjective, measure_scales

_NUM_SAMPLES, _BATCH = 512, 32
"""moments that the latents' statistics are measured on"""


def vae_objective(stage: StageName, job: Job, source: Source, fixed: Mapping[str, Tensor] | None) -> VaeObjective:
    """What the autoencoder learns. `fixed`: of the checkpoint that training goes on from."""
    recipe, seed = job.recipe, job.recipe.seed
    pictures = read_pictures(job, source)
    scales = measure_scales(pictures[0], seed) if fixed is None else Scales.of(fixed)
    readout = Readout(recipe.vae.latent_channels, len(CAMERAS), len(source.instructions))
    initialise(readout, f"{seed}:readout")
    networks = initial_vae(recipe.vae, seed).to(job.device), readout.to(job.device)
    return VaeObjective(networks, pictures, scales, recipe)


def read_pictures(job: Job, source: Source) -> tuple[Pictures, Pictures]:
    """The pictures to learn from, and those that are held out. Raises BundleError when there are none of one kind."""
    learnt, held_out = Pictures(job.recipe.future_stride), Pictures(job.recipe.future_stride)
    for index, episode in source.episodes(pictures=True):
        if index % 100 == 0:
            job.report(f"pictures: {index} of {source.num_episodes} episodes are read")
        (held_out if source.is_held_out(index) else learnt).add(episode, source.task(episode.info))
    held = f"to hold out, each {job.recipe.held_out_every}th of a task"
    for kind, pictures in (("to learn from", learnt), (held, held_out)):
        if not len(pictures):
            raise BundleError(f"{source.folders}: expected episodes {kind}, got none among {source.num_episodes}")
    return learnt, held_out


@torch.no_grad()
def finish_vae(job: Job, source: Source) -> None:
    """Writes the trained autoencoder, with the mean and std of its latents, unless the run has it."""
    trained = job.finished("vae")
    if is_saved(job.vae_model, trained.digest):
        return
    vae = initial_vae(job.recipe.vae, seed=0).eval()
    weights = required(trained.of("average"), [name for name, _ in vae.named_parameters()])
    vae.load_state_dict({**vae.state_dict(), **weights})
    pictures, _ = read_pictures(job, source)
    drawn = [pictures.draw((job.recipe.seed, 10, i), _BATCH, is_clip=False) for i in range(_NUM_SAMPLES // _BATCH)]
    encoded = torch.cat([encode_frames(vae, batch.frames[:, :, :, 0].flatten(0, 1)) for batch in drawn])
    latents = encoded.transpose(0, 1).flatten(1)
    vae.latents_mean.copy_(latents.mean(1))
    vae.latents_std.copy_(latents.std(1))
    shutil.rmtree(job.vae_model, ignore_errors=True)  # of another training
    with atomic_folder(job.vae_model) as partial:
        save_vae(vae, partial, torch.float32, trained.digest)
    job.report(f"autoencoder: {job.vae_model}")
