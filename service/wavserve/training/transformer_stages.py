"""The stages of the transformers: which weights they start from, their samples, their objective.

Knows neither the loop nor the losses' formulas.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wavserve.bundle import bundle
from wavserve.bundle.files import atomic_folder, digest_files
from wavserve.core.errors import BundleError
from wavserve.models.networks.encoder import TextCoder
from wavserve.models.networks.plain import MASKED
from wavserve.models.weights import presets
from wavserve.models.weights.standins import write_text_encoder, write_tokenizer
from wavserve.models.weights.weights import Models
from wavserve.training import checkpoint
from wavserve.training.action_loss import ActionObjective
from wavserve.training.checkpoint import Checkpoint
from wavserve.training.initial import initial_models
from wavserve.training.job import Job
from wavserve.training.latents import LatentCache
from wavserve.training.network import Network
from wavserve.training.recipe import StageName
from wavserve.training.samples import Pool, Sampler, Samples, joined, padded
from wavserve.training.source import Source
from wavserve.training.spec import BASE, policy_spec
from wavserve.training.statistics import Statistics, measure
from wavserve.training.trainer import Objective
from wavserve.training.vae import load_vae
from wavserve.training.value_loss import ValueObjective
from wavserve.training.video_loss import VideoObjective

_OBJECTIVES: Mapping[str, Any] = {"video": VideoObjective, "value": ValueObjective, "action": ActionObjective}


def base_digest(stage: StageName, job: Job) -> str:
    """The digest of what a stage starts from; empty for the autoencoder."""
    bases = _bases(stage, job)
    return bases[-1].digest if bases else ""


def _bases(stage: StageName, job: Job) -> list[Checkpoint]:
    """The checkpoints that a stage starts from; the last one says which were before it."""
    if stage == "vae":
        return []
    if stage == "action" and job.start is not None:
        if not (job.start / "action").is_dir():
            raise BundleError(f"--start: expected a run with a stage action, got {job.start}, which has none")
        if not (job.run / "vae").is_dir():
            raise BundleError(f"{job.run}/vae: expected the autoencoder of {job.start}, got none; copy {job.start}/vae")
    vae = job.finished("vae")
    if stage == "video":
        return [vae]
    if stage == "action" and job.start is not None:
        if (theirs := job.finished("vae", job.start).digest) != vae.digest:
            raise BundleError(f"{job.run}/vae: expected the autoencoder of {job.start}, {theirs}, got {vae.digest}")
        started = job.finished("action", job.start)
        check_stages(replace(job, run=job.start, start=None), started)
        return [started]
    video = job.finished_after("video", vae)
    return [video] if stage == "value" else [video, job.finished_after("value", video)]


def check_stages(job: Job, action: Checkpoint) -> None:
    """Raises BundleError when a stage of the run was trained anew after the stages that started from it."""
    origin, value = action.about.origin, checkpoint.read(job.run / "value")
    if value is not None and value.digest == origin.base:
        job.finished_after("value", job.finished_after("video", job.finished("vae")))
        return
    if not origin.autoencoder:
        expected = "to start from this run's stage value, or from another run that `train action --start` names"
        raise BundleError(f"{job.run / 'action'}: expected {expected}, got {origin.base}")
    if (vae := job.finished("vae").digest) != origin.autoencoder:
        raise BundleError(f"{job.run / 'action'}: expected latents of the autoencoder {vae}, got {origin.autoencoder}")


def transformer_objective(stage: StageName, job: Job, source: Source, fixed: Mapping[str, Tensor] | None) -> Objective:
    """What a stage learns. `fixed`: the statistics of the checkpoint that training goes on from."""
    bases = _bases(stage, job)
    statistics = _statistics(stage, source, bases, fixed)
    spec = policy_spec(job.recipe, statistics)
    models = initial_models(spec.model, job.recipe.seed)
    if stage != "video":
        load_weights(models, bases)
    pools = _pools(job, source, Sampler(spec, statistics, job.recipe.future_stride))
    if stage == "action" and not pools[0].has_labels:
        raise BundleError(f"{source.folders}: expected actions to imitate in the episodes to learn from, got none")
    network = Network.of(spec, models, job.device)
    objective: Objective = _OBJECTIVES[stage](network, pools, statistics.tensors(), job.recipe)
    return objective


def load_weights(models: Models, checkpoints: list[Checkpoint]) -> None:
    """Puts averaged weights into the models that a checkpoint has. Raises BundleError where one is missing."""
    for found in checkpoints:
        average = found.of("average")
        for group in ("video", "value", "action"):
            own = {n.removeprefix(f"{group}."): t for n, t in average.items() if n.startswith(f"{group}.")}
            if own:
                _load(getattr(models, group), own, found.about.origin.stage)


def _load(module: nn.Module, weights: Mapping[str, Tensor], stage: str) -> None:
    try:
        module.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise BundleError(f"checkpoint of the stage {stage}: expected the weights of its recipe: {error}") from error


def _statistics(
    stage: StageName, source: Source, bases: list[Checkpoint], fixed: Mapping[str, Tensor] | None
) -> Statistics:
    """Measured by the video stage; later ones, also with more data, go on with the same."""
    if fixed is not None:
        return Statistics.of(fixed)
    if stage != "video":
        return Statistics.of(bases[-1].of("fixed"))
    return measure(e for index, e in source.episodes(pictures=False) if not source.is_held_out(index))


def _pools(job: Job, source: Source, sampler: Sampler) -> tuple[Pool, Pool]:
    """The samples to learn from, and those that are held out."""
    cache = LatentCache(job.latents, job.finished("vae").digest)
    split: tuple[list[Samples], list[Samples]] = ([], [])
    with cache.alone(job.report):
        cache.fill(source, load_vae(job.recipe.vae, job.vae_model).to(job.device), job.report)
        for index, episode in source.episodes(pictures=False):
            samples = sampler.of(episode, cache.read(source, index), source.task(episode.info))
            split[source.is_held_out(index)].append(samples)
    if not all(split):
        every = job.recipe.held_out_every
        expected = f"at least {every} episodes of a task, because each {every}th is held out"
        raise BundleError(f"{source.folders}: expected {expected}, got {source.num_episodes} of all tasks")
    text = _text(job, source)
    learnt, held_out = (Pool(joined(samples), text, torch.device(job.device)) for samples in split)
    job.report(f"samples: {len(learnt)} to learn from, {len(held_out)} held out")
    return learnt, held_out


def _text(job: Job, source: Source) -> Any:
    """The instructions of all tasks, by the policy's own text encoder. Raises BundleError for another than `--start`
    has."""
    base = presets.find(BASE)
    if not job.text.exists():
        with atomic_folder(job.text) as partial:
            _fill_text(partial, job.start)
    if job.start is not None and (ours := _digest(job.text)) != (theirs := _digest(job.start / job.text.name)):
        raise BundleError(f"{job.text}: expected the text encoder of {job.start}, {theirs}, got {ours}")
    coder = TextCoder(job.text, base.spec)
    embeddings = coder.encode([text.encode() for text in source.instructions])
    return padded([torch.from_numpy(each) for each in embeddings], MASKED)


def _fill_text(folder: Path, start: Path | None) -> None:
    """The text encoder and the tokeniser of another run, or stand-ins."""
    for part in (bundle.TEXT_ENCODER, bundle.TOKENIZER):
        if start is None:
            (folder / part).mkdir()
        else:
            shutil.copytree(start / "text" / part, folder / part)
    if start is None:
        write_text_encoder(folder / bundle.TEXT_ENCODER, presets.find(BASE).stand_ins, seed=0)
        write_tokenizer(folder / bundle.TOKENIZER)


def _digest(folder: Path) -> str:
    return digest_files(folder, sorted(path for path in folder.rglob("*") if path.is_file()))
