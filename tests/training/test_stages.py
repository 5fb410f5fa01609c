"""All stages on a toy: from a data set to a bundle that a service serves; kills and refusals on the way."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from tests.training import synthetic
from tests.training.toy import longer, toy_data, toy_job, toy_recipe, train_all, write_recipe
from wavserve.app.service import assemble
from wavserve.app.settings import Settings
from wavserve.bundle import bundle
from wavserve.core.errors import BundleError, InvalidRequest
from wavserve.core.files import lock
from wavserve.core.normalise import rewards_and_returns
from wavserve.models.networks.plain import Draws as PlainDraws
from wavserve.models.networks.plain import Plain, Scene, plain_plan
from wavserve.models.weights import presets, weights
from wavserve.training import checkpoint
from wavserve.training.action_loss import plan
from wavserve.training.draws import Draws
from wavserve.training.export import make_bundle
from wavserve.training.initial import initial_models
from wavserve.training.job import Job
from wavserve.training.network import Network
from wavserve.training.recipe import STAGES, StageName
from wavserve.training.samples import Pool
from wavserve.training.source import open_source
from wavserve.training.spec import policy_spec
from wavserve.training.stages import train_stage
from wavserve.training.statistics import UNMEASURED, Statistics
from wavserve.training.transformer_stages import load_weights, transformer_objective
from wavserve.training.unpack import unpack_bundle
from wavserve.training.value_loss import value_figures

RECIPE = toy_recipe()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_data(tmp_path_factory.mktemp("data") / "toy")


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    job = toy_job(RECIPE, data, tmp_path_factory.mktemp("run"))
    train_all(job)
    return job


@pytest.fixture(scope="module")
def made(trained: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "toy"
    make_bundle(trained, folder)
    return folder


def tensors(run: Path, stage: str) -> Mapping[str, Tensor]:
    found = checkpoint.read(run / stage)
    assert found is not None
    return found.tensors


def assert_same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], rtol=0, atol=0, equal_nan=True, msg=name)


async def test_a_service_serves_the_bundle_and_makes_its_golden_plan(made: Path) -> None:
    backend = {"kind": "local", "dtype": "float32", "compile": "off"}
    facts: dict[str, Any] = {"bundle": {"path": str(made)}, "backend": backend}
    service = await assemble(Settings.model_validate(facts))
    try:
        await service.policy.warm_up()
        assert service.policy.fault is None
        assert service.policy.ready
    finally:
        await service.policy.drain(0.0)
        await service.close()


def test_the_bundle_declares_what_was_trained(made: Path) -> None:
    spec = bundle.load(made).spec
    assert (spec.name, spec.untrained, spec.embodiment, spec.max_trained_delay) == ("toy", False, "libero", 3)
    assert spec.rtc_modes == ("off", "rtc_guided", "rtc_trained")
    assert {camera.orientation for camera in spec.cameras} == {"rotated_180"}
    assert {part["dtypes"][0] for name, part in bundle.inspect(made)["parts"].items() if name == "transformer"} == {
        "F16"
    }
    assert "step 40 of 40, 8 episodes" in spec.notes


def test_a_predicted_value_can_be_told_in_units_of_the_return(made: Path, trained: Job) -> None:
    norm = bundle.load(made).spec.value_norm
    assert norm is not None
    found = checkpoint.read(trained.run / "action")
    assert found is not None
    episode = source_of(trained).read(0, pictures=False)
    squeezed = Statistics.of(found.of("fixed")).values(episode.reward, episode.returns).numpy()
    expected = np.stack([episode.reward, episode.returns], axis=1)
    assert np.abs(squeezed - expected).max() > 0.1
    np.testing.assert_allclose(rewards_and_returns(squeezed, norm), expected, atol=1e-6)


def test_the_training_code_plans_as_serving_does(made: Path, trained: Job) -> None:
    """On the bundle's own weights, with the same draws, from the same latents, state and text."""
    opened = bundle.load(made)
    models = weights.load(made / bundle.TRANSFORMER, opened.spec.model)
    objective: Any = transformer_objective("value", trained, source_of(trained), None)
    batch = objective._held_out.draw((0,), 2)
    network = Network.of(opened.spec, models, "cpu")
    with torch.no_grad():
        actions = plan(network, batch, Draws(0, "test", 0, torch.device("cpu")))
    again, samples, latent = Draws(0, "test", 0, torch.device("cpu")), batch.samples, opened.spec.latent
    video, value = again.normal(*samples.future.shape), again.normal(batch.size, 1, *samples.values.shape[1:])
    noise = again.normal(batch.size, 1, *samples.actions.shape[1:])
    plain = Plain(models, opened.spec.model, latent)
    config = dataclasses.replace(opened.spec.planner, mode="off", num_iterations=0)

    def frames(tokens: Tensor) -> Tensor:
        return tokens.unflatten(1, (1, latent.height, latent.width)).movedim(-1, 1)

    for row in range(batch.size):
        text = batch.text.tokens[row * len(batch.text.tokens) // batch.size]
        mask = (batch.text.mask[row * len(batch.text.tokens) // batch.size] == 0).float()
        history = torch.cat([torch.zeros(7), samples.state[row]])
        scene = Scene(frames(samples.memory[row]), text, mask, history)
        draws = PlainDraws(video[None, :0], value[None, :0, 0], frames(video[row]), value[row, 0], noise[row, 0])
        served, _ = plain_plan(plain, scene, draws, config)
        torch.testing.assert_close(actions[row], served, rtol=0, atol=1e-5)


def test_sixteen_bits_lose_nothing_that_matters(made: Path, trained: Job) -> None:
    stored = weights.load(made / bundle.TRANSFORMER, bundle.load(made).spec.model).action.state_dict()
    average = checkpoint.read(trained.run / "action")
    assert average is not None
    for name, tensor in average.of("average").items():
        if name.startswith("action."):
            torch.testing.assert_close(stored[name.removeprefix("action.")], tensor, rtol=1e-3, atol=1e-6)


def source_of(job: Job) -> Any:
    return open_source(job.data, None, job.recipe.held_out_every)


class _Stop(Exception):
    """Ends a training where it stands."""


def prepared(trained: Job, run: Path, stage: str) -> Path:
    """A run with the stages before one, and nothing of it."""
    shutil.copytree(trained.run, run, ignore=shutil.ignore_patterns(stage))
    return run


@pytest.mark.parametrize("stage", STAGES)
def test_an_interrupted_stage_ends_with_the_same_weights(stage: StageName, trained: Job, tmp_path: Path) -> None:
    run = prepared(trained, tmp_path / "run", stage)

    def stop(line: str) -> None:
        if line.startswith(f"{stage} 40/40"):
            raise _Stop

    job = dataclasses.replace(trained, run=run, checkpoint_s=0.0)
    with pytest.raises(_Stop):
        train_stage(stage, dataclasses.replace(job, report=stop))
    stopped = checkpoint.read(run / stage)
    assert stopped is not None
    assert stopped.about.step == 20
    train_stage(stage, job)
    assert_same(tensors(run, stage), tensors(trained.run, stage))


@pytest.mark.slow
def test_a_process_killed_twice_ends_with_the_same_weights(trained: Job, tmp_path: Path) -> None:
    """Killed after its first checkpoint and after a later one, then left alone; against one that was never killed."""
    recipe = longer(RECIPE, "action", 100)
    file = write_recipe(tmp_path / "recipe.toml", recipe)
    killed, alone = (prepared(trained, tmp_path / name, "action") for name in ("killed", "alone"))
    options = ["--recipe", file, "--data", trained.data[0], "--folder", killed, "--threads", 1, "--checkpoint-s", 0]
    command = list(map(str, [sys.executable, "-m", "wavserve.cli", "train", "action", *options]))
    for least in (20, 60):
        child = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        wait_for_step(killed / "action", least, child)
        child.kill()
        child.wait()
    for run in (killed, alone):
        train_stage("action", dataclasses.replace(trained, recipe=recipe, run=run))
    assert_same(tensors(killed, "action"), tensors(alone, "action"))


def wait_for_step(folder: Path, least: int, child: subprocess.Popen[bytes]) -> None:
    """Until the checkpoint has so many steps, and the child still trains."""
    for _ in range(12_000):
        found = checkpoint.read(folder)
        if found is not None and found.about.step >= least:
            return
        assert child.poll() is None, "the training ended before it could be killed"
        time.sleep(0.05)
    raise AssertionError(f"expected {least} steps in time")


def test_a_checkpoint_of_another_recipe_is_refused(trained: Job) -> None:
    other = dataclasses.replace(trained, recipe=dataclasses.replace(RECIPE, seed=1))
    with pytest.raises(BundleError, match=rf"recipe {other.recipe.digest('vae')}, got {RECIPE.digest('vae')}"):
        train_stage("vae", other)
    changed = longer(RECIPE, "video", 60)  # what the autoencoder does not depend on
    train_stage("vae", dataclasses.replace(trained, recipe=changed))
    with pytest.raises(BundleError, match="expected a checkpoint of recipe"):
        train_stage("value", dataclasses.replace(trained, recipe=changed))


def test_a_checkpoint_of_another_data_set_is_refused(trained: Job, tmp_path: Path) -> None:
    other = toy_data(tmp_path / "other", seed=1)
    with pytest.raises(BundleError, match=r"expected a checkpoint of data set [0-9a-f]{64}, got [0-9a-f]{64}"):
        train_stage("video", dataclasses.replace(trained, data=(other,)))


def test_a_data_set_that_grew_does_not_change_a_run(trained: Job, tmp_path: Path) -> None:
    grown = toy_data(tmp_path / "grown", per_task=6)
    train_stage("video", dataclasses.replace(trained, data=(grown,)))  # it is done, with the first 8 episodes
    with pytest.raises(BundleError, match=r"--episodes: expected 8, as the run has .*, got 10"):
        train_stage("video", dataclasses.replace(trained, data=(grown,), nums=(10,)))


def recoveries(folder: Path) -> Path:
    """A second data set for a stage."""
    return toy_data(folder, seed=100)


def test_data_sets_that_grow_meanwhile_do_not_change_a_run_that_joins_them(trained: Job, tmp_path: Path) -> None:
    first, second = toy_data(tmp_path / "first"), recoveries(tmp_path / "second")
    grown, alone = (prepared(trained, tmp_path / name, "action") for name in ("grown", "alone"))
    joined = dataclasses.replace(trained, data=(first, second), checkpoint_s=0.0)
    train_stage("action", dataclasses.replace(joined, run=alone))

    def stop(line: str) -> None:
        if line.startswith("action 40/40"):
            raise _Stop

    with pytest.raises(_Stop):
        train_stage("action", dataclasses.replace(joined, run=grown, report=stop))
    toy_data(first, per_task=6)
    toy_data(second, per_task=6, seed=100)
    train_stage("action", dataclasses.replace(joined, run=grown))
    assert_same(tensors(grown, "action"), tensors(alone, "action"))
    found = checkpoint.read(grown / "action")
    assert found is not None
    assert (found.about.origin.nums, found.about.origin.num_episodes) == ((8, 8), 16)
    with pytest.raises(BundleError, match=r"--data: expected 2 folders, as the run has in .*, got 1"):
        train_stage("action", dataclasses.replace(joined, run=grown, data=(first,)))
    with pytest.raises(BundleError, match=r"--episodes: expected 8 8, as the run has in .*, got 8 9"):
        train_stage("action", dataclasses.replace(joined, run=grown, nums=(8, 9)))
    with pytest.raises(BundleError, match="expected a checkpoint of data set"):
        train_stage("action", dataclasses.replace(joined, run=grown, data=(second, first)))


def test_each_data_set_has_a_number_of_episodes(trained: Job, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="--episodes: expected a number for each data set, 2, got 1"):
        train_stage("video", dataclasses.replace(trained, data=(*trained.data, tmp_path), nums=(4,)))


def test_a_run_with_one_data_set_has_the_checkpoints_of_earlier_versions(trained: Job) -> None:
    for stage in STAGES:
        with safe_open(trained.run / stage / checkpoint.FILE, framework="pt") as file:
            origin = json.loads(file.metadata()["about"])["origin"]
        assert list(origin) == ["stage", "recipe", "data", "num_episodes", "base"]


def test_stages_of_a_run_use_its_latents_in_turn(trained: Job, tmp_path: Path) -> None:
    """One that must wait says so, and goes on when the other one is done."""
    run = prepared(trained, tmp_path / "run", "value")
    said: list[str] = []
    held = lock(run / "latents" / checkpoint.LOCK)
    assert held is not None
    waiting = threading.Thread(
        target=train_stage, args=("value", dataclasses.replace(trained, run=run, report=said.append, num_threads=1))
    )
    waiting.start()
    for _ in range(6_000):
        if said:
            break
        time.sleep(0.01)
    assert said == ["latents: another stage of this run encodes them; waiting for it"]
    assert waiting.is_alive()
    os.close(held)
    waiting.join(300)
    assert_same(tensors(run, "value"), tensors(trained.run, "value"))


def test_a_stage_that_is_interrupted_says_how_it_goes_on(trained: Job, tmp_path: Path) -> None:
    run = prepared(trained, tmp_path / "run", "value")
    said: list[str] = []

    def report(text: str) -> None:
        said.append(text)
        if text.startswith("value ") and "interrupted" not in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_stage("value", dataclasses.replace(trained, run=run, report=report))
    last = f"value: interrupted. The same command goes on from the last checkpoint in {run / 'value'}, if there is one."
    assert said[-1] == last


def test_a_stage_needs_those_before_it(trained: Job, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="expected a finished stage vae, got 0 steps"):
        train_stage("video", dataclasses.replace(trained, run=tmp_path))
    with pytest.raises(BundleError, match="expected a checkpoint, got none"):
        make_bundle(dataclasses.replace(trained, run=tmp_path), tmp_path / "bundle")


def test_pictures_of_another_size_are_refused(tmp_path: Path) -> None:
    synthetic.write(tmp_path / "data", size=64)
    with pytest.raises(BundleError, match="pictures: expected a size of 128, got 64"):
        train_stage("vae", toy_job(RECIPE, tmp_path / "data", tmp_path / "run"))


def test_too_few_episodes_to_hold_one_out_are_refused(tmp_path: Path) -> None:
    synthetic.write(tmp_path / "data", size=128, per_task=2)
    with pytest.raises(BundleError, match="expected episodes to hold out, each 4th of a task, got none among 4"):
        train_stage("vae", toy_job(RECIPE, tmp_path / "data", tmp_path / "run"))


def test_a_run_is_trained_by_one_process_at_a_time(trained: Job) -> None:
    with checkpoint.alone(trained.run / "video"), pytest.raises(InvalidRequest, match="no other process trains"):
        train_stage("video", trained)
    train_stage("video", trained)


def test_a_folder_that_cannot_be_written_is_named(trained: Job, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidRequest, match="--folder: expected a folder that can be written"):
        train_stage("vae", dataclasses.replace(trained, run=tmp_path / "file" / "run"))


def test_a_damaged_checkpoint_is_named(trained: Job, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained.run, run)
    file = run / "video" / checkpoint.FILE
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(BundleError, match="expected a whole checkpoint"):
        train_stage("video", dataclasses.replace(trained, run=run))


def without(run: Path, stage: str, tensor: str) -> None:
    """Takes a tensor out of a checkpoint that is not at its end."""
    found = checkpoint.read(run / stage)
    assert found is not None
    kept = {name: t for name, t in found.tensors.items() if name != tensor}
    assert len(kept) < len(found.tensors)
    checkpoint.write(run / stage, checkpoint.Checkpoint(dataclasses.replace(found.about, step=20), kept))


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        ("curve", "expected a tensor curve, got none"),
        ("fixed.state_low", "expected a tensor state_low, got none"),
        ("weights.value.proj_out.weight", r"weights\.value\.proj_out\.weight: expected shape \[.*\], got None"),
        ("second.value.proj_out.weight", r"second\.value\.proj_out\.weight: expected shape \[.*\], got None"),
    ],
)
def test_a_checkpoint_that_lacks_a_tensor_is_named(tensor: str, message: str, trained: Job, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained.run, run)
    without(run, "value", tensor)
    with pytest.raises(BundleError, match=message):
        train_stage("value", dataclasses.replace(trained, run=run))


def test_weights_that_an_earlier_stage_lacks_are_named(trained: Job) -> None:
    found = checkpoint.read(trained.run / "video")
    assert found is not None
    name = next(name for name in found.tensors if name.startswith("average."))
    broken = dataclasses.replace(found, tensors={n: t for n, t in found.tensors.items() if n != name})
    models = initial_models(policy_spec(RECIPE, UNMEASURED).model, 0)
    with pytest.raises(BundleError, match="checkpoint of the stage video: expected the weights of its recipe"):
        load_weights(models, [broken])


def test_a_recipe_whose_policy_could_not_be_served_is_refused_before_the_first_stage(
    trained: Job, tmp_path: Path
) -> None:
    planner = dataclasses.replace(RECIPE.planner, num_video_samples=100_000)
    job = dataclasses.replace(trained, recipe=dataclasses.replace(RECIPE, planner=planner), run=tmp_path)
    with pytest.raises((BundleError, InvalidRequest), match="num_video_samples"):
        train_stage("vae", job)


def test_figures_that_returns_do_not_define_are_left_out_and_broken_ones_are_shown(trained: Job) -> None:
    objective: Any = transformer_objective("value", trained, source_of(trained), None)
    network, pool = objective._network, objective._pool  # with failures: successes return the same here
    assert set(value_figures(network, pool, RECIPE)) == {"return correlation", "return error"}
    samples = pool._samples
    equal = Pool(dataclasses.replace(samples, values=torch.zeros_like(samples.values)), pool._text, network.device)
    assert set(value_figures(network, equal, RECIPE)) == {"return error"}
    with torch.no_grad():
        network.models.value.proj_out.bias.fill_(math.nan)
    assert all(map(math.isnan, value_figures(network, pool, RECIPE).values()))


def test_an_action_stage_goes_on_from_another_ones_weights(trained: Job, tmp_path: Path) -> None:
    """With more data and the same statistics, as after roll-outs of the first policy."""
    grown = toy_data(tmp_path / "grown", per_task=8)
    run = prepared(trained, tmp_path / "run", "action")
    job = dataclasses.replace(trained, run=run, data=(grown,), start=trained.run)
    train_stage("action", job)
    first, second = tensors(trained.run, "action"), tensors(run, "action")
    names = [name for name in first if name.startswith("fixed.")]
    assert_same({name: first[name] for name in names}, {name: second[name] for name in names})
    found = checkpoint.read(run / "action")
    assert found is not None
    assert found.about.origin.num_episodes == 16
    with pytest.raises(InvalidRequest, match="--start: expected the run whose weights this stage started from, got"):
        train_stage("action", dataclasses.replace(job, start=None))


def test_episodes_without_an_action_to_imitate_are_refused(trained: Job, tmp_path: Path) -> None:
    """Of failures alone, as of a policy's own episodes: the loss would be 0 at each step."""
    synthetic.write(tmp_path / "failures", per_task=4, size=128, num_steps=24, kinds=("failure",))
    run = prepared(trained, tmp_path / "run", "action")
    job = dataclasses.replace(trained, run=run, data=(tmp_path / "failures",), start=trained.run)
    with pytest.raises(BundleError, match="expected actions to imitate in the episodes to learn from, got none"):
        train_stage("action", job)


def with_another_autoencoder(trained: Job, run: Path) -> Job:
    """A whole run whose autoencoder was trained anew after its other stages."""
    shutil.copytree(trained.run, run)
    found = checkpoint.read(run / "vae")
    assert found is not None
    name = next(name for name in found.tensors if name.startswith("average."))
    checkpoint.write(run / "vae", dataclasses.replace(found, tensors={**found.tensors, name: found.tensors[name] + 1}))
    job = dataclasses.replace(trained, run=run)
    train_stage("vae", job)  # its folder `model` is made anew
    return job


def test_stages_of_an_autoencoder_that_is_gone_are_refused(trained: Job, tmp_path: Path) -> None:
    job = with_another_autoencoder(trained, tmp_path / "run")
    for stage in ("value", "action"):
        with pytest.raises(BundleError, match=r"video: expected to start from the stage vae [0-9a-f]{64}, got"):
            train_stage(stage, job)  # type: ignore[arg-type]
    with pytest.raises(BundleError, match=r"video: expected to start from the stage vae [0-9a-f]{64}, got"):
        make_bundle(job, tmp_path / "bundle")


def test_weights_of_a_run_with_another_autoencoder_are_refused(trained: Job, tmp_path: Path) -> None:
    job = with_another_autoencoder(trained, tmp_path / "run")
    shutil.rmtree(job.run / "action")
    with pytest.raises(BundleError, match=r"run/vae: expected the autoencoder of .*, [0-9a-f]{64}, got [0-9a-f]{64}"):
        train_stage("action", dataclasses.replace(job, start=trained.run))


def test_weights_of_a_run_whose_stages_do_not_belong_together_are_refused(trained: Job, tmp_path: Path) -> None:
    stale = with_another_autoencoder(trained, tmp_path / "stale")
    shutil.copytree(stale.run / "vae", tmp_path / "run" / "vae")
    job = dataclasses.replace(trained, run=tmp_path / "run", start=stale.run)
    with pytest.raises(BundleError, match=r"stale/video: expected to start from the stage vae [0-9a-f]{64}, got"):
        train_stage("action", job)


def test_a_start_that_is_no_run_and_an_autoencoder_that_was_not_copied_are_named(trained: Job, tmp_path: Path) -> None:
    job = dataclasses.replace(trained, run=tmp_path / "run", start=tmp_path / "nothing")
    with pytest.raises(BundleError, match=r"--start: expected a run with a stage action, got .*nothing"):
        train_stage("action", job)
    with pytest.raises(BundleError, match=f"run/vae: expected the autoencoder of {trained.run}, got none; copy"):
        train_stage("action", dataclasses.replace(job, start=trained.run))


def test_a_checkpoint_that_learnt_another_autoencoders_latents_is_refused(tmp_path: Path) -> None:
    ours = checkpoint.Origin("action", "recipe", "data", 3, "base", (), "ours")
    checkpoint.check_origin(tmp_path, ours, ours)
    checkpoint.check_origin(tmp_path, dataclasses.replace(ours, autoencoder=""), ours)  # of an earlier version
    with pytest.raises(BundleError, match="expected latents of the autoencoder ours, got theirs"):
        checkpoint.check_origin(tmp_path, dataclasses.replace(ours, autoencoder="theirs"), ours)


def started_elsewhere(trained: Job, run: Path) -> Job:
    """A run whose action stage started from another run's weights."""
    job = dataclasses.replace(trained, run=prepared(trained, run, "action"), start=trained.run)
    train_stage("action", job)
    return dataclasses.replace(job, start=None)


def test_a_bundle_has_the_autoencoder_whose_latents_its_policy_learnt(trained: Job, tmp_path: Path) -> None:
    """Also of a policy that started from another run."""
    job = started_elsewhere(trained, tmp_path / "run")
    make_bundle(job, tmp_path / "fits")
    other = with_another_autoencoder(job, tmp_path / "other")
    with pytest.raises(BundleError, match=r"action: expected latents of the autoencoder [0-9a-f]{64}, got"):
        make_bundle(other, tmp_path / "bundle")


def test_an_earlier_versions_start_from_another_run_is_told_by_the_same_command(trained: Job, tmp_path: Path) -> None:
    job = started_elsewhere(trained, tmp_path / "run")
    found = checkpoint.read(job.run / "action")
    assert found is not None
    earlier = dataclasses.replace(found.about, origin=dataclasses.replace(found.about.origin, autoencoder=""))
    checkpoint.write(job.run / "action", dataclasses.replace(found, about=earlier))
    with pytest.raises(BundleError, match="expected to start from this run's stage value, or from another run"):
        make_bundle(job, tmp_path / "bundle")
    train_stage("action", dataclasses.replace(job, start=trained.run))
    make_bundle(job, tmp_path / "bundle")


def test_a_bundle_becomes_a_run_whose_bundle_is_the_same(made: Path, trained: Job, tmp_path: Path) -> None:
    job = dataclasses.replace(trained, run=tmp_path / "unpacked")
    unpack_bundle(job, made)
    make_bundle(job, tmp_path / "again")
    for part in (bundle.TRANSFORMER, bundle.VAE):
        file = f"{part}/diffusion_pytorch_model.safetensors"
        assert_same(load_file(tmp_path / "again" / file), load_file(made / file))
    assert bundle.load(tmp_path / "again").spec == dataclasses.replace(bundle.load(made).spec, notes=ANY)
    with pytest.raises(BundleError, match="expected no such folder yet"):
        unpack_bundle(job, made)


def test_training_goes_on_from_a_bundle(made: Path, trained: Job, tmp_path: Path) -> None:
    unpacked, run = (dataclasses.replace(trained, run=tmp_path / name) for name in ("unpacked", "run"))
    unpack_bundle(unpacked, made)
    shutil.copytree(unpacked.run / "vae", run.run / "vae")
    note = Path("text_encoder") / "note.txt"
    (unpacked.text / note).write_text("of the bundle")
    train_stage("action", dataclasses.replace(run, start=unpacked.run))
    assert (run.text / note).read_text() == "of the bundle", "instructions are encoded as the bundle encodes them"
    first, second = tensors(unpacked.run, "action"), tensors(run.run, "action")
    assert_same({n: t for n, t in first.items() if "fixed." in n}, {n: t for n, t in second.items() if "fixed." in n})
    assert not torch.equal(first["average.action.proj_out.weight"], second["average.action.proj_out.weight"])
    make_bundle(run, tmp_path / "bundle")
    (run.text / note).write_text("of another")
    shutil.rmtree(run.run / "action")
    with pytest.raises(BundleError, match=r"run/text: expected the text encoder of .*unpacked, [0-9a-f]{64}, got"):
        train_stage("action", dataclasses.replace(run, start=unpacked.run))


def test_a_bundle_of_another_recipe_is_not_unpacked(made: Path, trained: Job, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, action=dataclasses.replace(RECIPE.action, max_delay=2))
    with pytest.raises(BundleError, match="max_trained_delay: expected 2, as in the recipe toy, got 3"):
        unpack_bundle(dataclasses.replace(trained, recipe=recipe, run=tmp_path / "run"), made)
    presets.create("tiny", tmp_path / "tiny", with_golden=False)
    with pytest.raises(BundleError, match="expected a policy that `wavserve train bundle` made"):
        unpack_bundle(dataclasses.replace(trained, run=tmp_path / "run"), tmp_path / "tiny")
    assert not (tmp_path / "run").exists()


def test_the_curves_show_each_term(trained: Job) -> None:
    drawing = (trained.run / "action" / "curves.svg").read_text()
    assert drawing.startswith("<svg xmlns=")
    for term in ("action:", "value:", "held out, gripper:", "video, any noise:"):
        assert f">{term} " in drawing


def test_progress_tells_losses_and_the_time_left(data: Path, tmp_path: Path) -> None:
    said: list[str] = []
    train_stage("vae", dataclasses.replace(toy_job(RECIPE, data, tmp_path), report=said.append))
    lines = [line for line in said if line.startswith("vae 5/40: loss ")]
    assert len(lines) == 1
    assert "steps/s" in lines[0]
    assert lines[0].endswith("min left")
