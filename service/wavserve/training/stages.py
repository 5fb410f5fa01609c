"""Trains one stage to its end: opens the data, checks what the run has, goes on from there.

Knows the order of the stages, and neither losses nor the command line.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from wavserve.core.errors import BundleError, InvalidRequest
from wavserve.training import checkpoint
from wavserve.training.checkpoint import Checkpoint, Origin, check_origin
from wavserve.training.job import Job
from wavserve.training.loop import Run, train
from wavserve.training.recipe import StageName
from wavserve.training.source import Source, open_source
from wavserve.training.spec import PICTURE_SIZE, policy_spec
from wavserve.training.statistics import UNMEASURED
from wavserve.training.trainer import Trainer
from wavserve.training.transformer_stages import base_digest, transformer_objective
from wavserve.training.vae_stage import finish_vae, vae_objective


def train_stage(stage: StageName, job: Job) -> None:
    """Trains a stage, or what is left of it.

    Raises BundleError when the recipe's policy could not be served, the data cannot be used, an earlier stage is
    missing, or the run's checkpoint is of another recipe or data set. Raises InvalidRequest for a device that is not
    there, when another process trains, and when a stage that started from another run's weights is not told them.
    """
    _prepare_torch(job)
    policy_spec(job.recipe, UNMEASURED)  # a policy that could not be served is refused before hours of training
    with checkpoint.alone(job.run / stage):
        _train_rest(stage, job)


def _train_rest(stage: StageName, job: Job) -> None:
    folder = job.run / stage
    saved = checkpoint.read(folder)
    if saved is not None and saved.about.origin.autoencoder and job.start is None:
        raise InvalidRequest("--start", "the run whose weights this stage started from", "none")
    source = _source(job, saved)
    origin = _origin(stage, job, source)
    if saved is not None:
        check_origin(folder, saved.about.origin, origin)
    if saved is None or not saved.about.is_done:
        _train(stage, job, source, saved, origin)
    elif saved.about.origin != origin:  # an earlier version told less of it
        checkpoint.write(folder, replace(saved, about=replace(saved.about, origin=origin)))
    if stage == "vae":
        finish_vae(job, source)


def _train(stage: StageName, job: Job, source: Source, saved: Checkpoint | None, origin: Origin) -> None:
    fixed = None if saved is None else saved.of("fixed")
    make = vae_objective if stage == "vae" else transformer_objective
    objective = make(stage, job, source, fixed)
    begins = "begins" if saved is None else f"goes on from step {saved.about.step}"
    job.report(f"{stage}: {begins}, with {' + '.join(map(str, source.nums))} episodes")
    run = Run(job.run / stage, origin, job.recipe.evaluate_every, job.report, job.checkpoint_s)
    try:
        train(Trainer(objective, getattr(job.recipe, stage).optimisation), run, saved)
    except KeyboardInterrupt:
        job.report(
            f"{stage}: interrupted. The same command goes on from the last checkpoint in {run.folder}, if there is one."
        )
        raise


def _prepare_torch(job: Job) -> None:
    """Raises InvalidRequest when there is no such device."""
    if job.num_threads is not None:
        torch.set_num_threads(job.num_threads)
    if job.device == "cuda" and not torch.cuda.is_available():
        raise InvalidRequest("--device", "cpu, as torch finds no GPU", job.device)


def _origin(stage: StageName, job: Job, source: Source) -> Origin:
    return Origin(
        stage=stage,
        recipe=job.recipe.digest(stage),
        data=source.digest(),
        num_episodes=source.num_episodes,
        base=base_digest(stage, job),
        nums=source.nums if len(source.nums) > 1 else (),
        autoencoder="" if job.start is None else job.finished("vae").digest,
    )


def _source(job: Job, saved: Checkpoint | None) -> Source:
    """The episodes of the run. A data set grows, but a stage ends with the episodes that it began with."""
    nums = job.nums
    if nums is not None and len(nums) != len(job.data):
        raise InvalidRequest("--episodes", f"a number for each data set, {len(job.data)}", len(nums))
    if saved is not None:
        origin = saved.about.origin
        began = origin.nums or (origin.num_episodes,)
        if len(began) != len(job.data):
            expected = f"{len(began)} folders, as the run has in {job.run}"
            raise BundleError(f"--data: expected {expected}, got {len(job.data)}")
        if nums not in (None, began):
            expected, actual = (" ".join(map(str, each)) for each in (began, nums or ()))
            raise BundleError(f"--episodes: expected {expected}, as the run has in {job.run}, got {actual}")
        nums = began
    source = open_source(job.data, nums, job.recipe.held_out_every)
    if source.size != PICTURE_SIZE:
        raise BundleError(f"{source.folders}: pictures: expected a size of {PICTURE_SIZE}, got {source.size}")
    return source
