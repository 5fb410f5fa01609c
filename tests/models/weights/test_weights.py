"""Loading, checking, saving and drawing weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from wavserve.core.errors import BundleError
from wavserve.models.flops import Workload
from wavserve.models.weights import weights
from wavserve.models.weights.checkpoint import FILE, INDEX
from wavserve.models.weights.weights import Models


def state(models: Models) -> dict[str, Tensor]:
    parts = {"": models.video, "value_": models.value, "action_": models.action}
    return {prefix + name: tensor for prefix, part in parts.items() for name, tensor in part.state_dict().items()}


@pytest.fixture
def folder(odd: Workload, tmp_path: Path) -> Path:
    weights.save_random(odd.config, tmp_path / "transformer", seed=3)
    return tmp_path / "transformer"


def edited(folder: Path, edit: Callable[[dict[str, Tensor]], object]) -> Path:
    tensors = load_file(folder / FILE)
    edit(tensors)
    save_file(tensors, folder / FILE)
    return folder


def test_loaded_weights_equal_the_drawn_ones(odd: Workload, models: Models, folder: Path) -> None:
    loaded, drawn = state(weights.load(folder, odd.config)), state(models)

    assert loaded.keys() == drawn.keys()
    assert all(torch.equal(loaded[name], drawn[name]) for name in drawn)


@pytest.mark.parametrize("entry", ["", INDEX])
def test_shards_load_like_one_file(odd: Workload, models: Models, tmp_path: Path, entry: str) -> None:
    weights.save(models, tmp_path, max_shard_bytes=200_000)

    loaded = state(weights.load(tmp_path / entry, odd.config))

    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state(models).items())


def test_models_load_in_evaluation_mode_without_gradients(odd: Workload, folder: Path) -> None:
    video = weights.load_video(folder, odd.config, dtype=torch.bfloat16)

    assert not video.training
    assert all(p.dtype == torch.bfloat16 and not p.requires_grad for p in video.parameters())


def test_one_model_needs_only_its_own_tensors(odd: Workload, folder: Path) -> None:
    def drop(tensors: dict[str, Tensor]) -> None:
        for name in [name for name in tensors if not name.startswith("value_")]:
            del tensors[name]

    edited(folder, drop)

    assert len(weights.load_expert(folder, odd.config, "value").blocks) == odd.config.video.num_layers
    with pytest.raises(BundleError, match="missing"):
        weights.load_expert(folder, odd.config, "action")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.pop("value_proj_in.bias"), r"1 missing: value_proj_in\.bias"),
        (lambda t: t.update(surprise=torch.zeros(2)), "1 unexpected: surprise"),
        (
            lambda t: t.update({"proj_in.bias": torch.zeros(2)}),
            r"1 of wrong shape: proj_in\.bias \(expected \(40,\), got \(2,\)\)",
        ),
        (lambda t: [t.pop(name) for name in list(t) if ".attn2." in name], r"150 missing: .* and 140 more"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    odd: Workload, folder: Path, edit: Callable[..., object], message: str
) -> None:
    edited(folder, edit)

    with pytest.raises(BundleError, match=message):
        weights.load(folder, odd.config)
    with pytest.raises(BundleError, match=message):
        weights.check(folder, odd.config)


def test_files_without_weights_are_refused(odd: Workload, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="found 0 of the two"):
        weights.check(tmp_path, odd.config)
    (tmp_path / FILE).write_bytes(b"no tensors")
    with pytest.raises(BundleError, match="expected a safetensors file"):
        weights.check(tmp_path, odd.config)
    (tmp_path / INDEX).write_text("[]")
    with pytest.raises(BundleError, match="weight_map"):
        weights.check(tmp_path / INDEX, odd.config)


def test_an_index_may_only_name_files_in_its_own_folder(odd: Workload, folder: Path) -> None:
    (folder / INDEX).write_text(json.dumps({"weight_map": {"proj_in.bias": f"../transformer/{FILE}"}}))

    with pytest.raises(BundleError, match="not a file in its folder"):
        weights.check(folder / INDEX, odd.config)


def test_a_seed_gives_the_same_weights_everywhere() -> None:
    drawn = weights.random_tensor("proj_in.weight", (16, 12), seed=7)

    digest = hashlib.sha256(drawn.numpy().tobytes()).hexdigest()
    assert digest == "37069b8985fa5fa5a1e96d565f3743605b7206293199629d72413c64e0f81998"
    assert not torch.equal(drawn, weights.random_tensor("proj_in.weight", (16, 12), seed=8))
    assert not torch.equal(drawn, weights.random_tensor("proj_out.weight", (16, 12), seed=7))


def test_progress_ends_at_one(odd: Workload, tmp_path: Path) -> None:
    fractions: list[float] = []

    weights.save_random(odd.config, tmp_path, seed=0, progress=fractions.append)

    assert fractions[-1] == 1
    assert fractions == sorted(fractions)


def test_no_random_tensor_is_constant(models: Models) -> None:
    assert all(tensor.std() > 0 for tensor in state(models).values())
