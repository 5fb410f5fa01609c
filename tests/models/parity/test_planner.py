"""The service's planner against the plain path on other sizes than those of the released code's plans."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from einops import rearrange
from safetensors.torch import load_file, save_file
from torch import Tensor

from wavserve.app.parity import check_planner
from wavserve.models.networks.plain import Plain, PlainIteration, plain_plan
from wavserve.models.parity.fixtures import Fixture, config_from_fixture, planner_config, read_draws, read_scene
from wavserve.models.weights.weights import random_models, save

MODES = {"08_plan_official": "published", "09_plan_corrected": "paper"}
EXPLORE = {
    "explore_steps": 2,
    "dynamic_groups": 5,
    "value_groups": 2,
    "sigma_decay": 0.6,
    "alpha_smooth": 0.7,
    "value_elites": 0.3,
    "dynamic_elites": 0.6,
}


@pytest.fixture(scope="module")
def other(parity_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fixture folder of another configuration. Its plans are recorded from the plain path.

    Three views, width 40, experts of different widths, 28 and 17 channels, 54 actions and 21 value tokens.
    """
    folder = tmp_path_factory.mktemp("other")
    config = json.loads((parity_folder / "config.json").read_text())
    config |= {"n_view": 3, "n_prev": 3, "chunk_latent_frames": 1, "latent_h": 2, "latent_w": 3}
    config |= {"action_chunk": 54, "value_chunk": 21, "text_len": 9}
    config["model_kwargs"] |= {"in_channels": 12, "out_channels": 12, "num_layers": 5, "num_attention_heads": 5}
    config["model_kwargs"] |= {"attention_head_dim": 8, "cross_attention_dim": 40, "caption_channels": 24}
    config["model_kwargs"] |= {"action_in_channels": 28, "action_out_channels": 28, "action_attention_head_dim": 22}
    config["model_kwargs"] |= {"value_in_channels": 17, "value_attention_head_dim": 14}
    (folder / "config.json").write_text(json.dumps(config))
    sizes = config_from_fixture(config)
    models = random_models(sizes.model, seed=5)
    save(models, folder)
    next(folder.glob("*.safetensors")).rename(folder / "weights.safetensors")
    inputs = write_inputs(folder, config)
    plain, draws = Plain(models, sizes.model, sizes.latent), read_draws(inputs, sizes)
    for name, mode in MODES.items():
        fixture = Fixture(name, {"explore_config": EXPLORE}, {})
        recorded = {}
        for prefix, per_view in (("", False), ("per_view.", True)):
            settings = planner_config(fixture, mode, per_view)  # type: ignore[arg-type]
            plan = plain_plan(plain, read_scene(inputs), draws, settings)
            recorded |= {
                prefix + tensor: value for tensor, value in recording(plan, mode, per_view, config["n_prev"]).items()
            }
        if mode == "published":
            recorded = {tensor: value for tensor, value in recorded.items() if not tensor.startswith("per_view.")}
        write(folder, name, recorded)
    return folder


def write_inputs(folder: Path, config: dict) -> Fixture:  # type: ignore[type-arg]
    generator = torch.Generator().manual_seed(9)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    kwargs, views, n, m = config["model_kwargs"], config["n_view"], EXPLORE["dynamic_groups"], EXPLORE["value_groups"]
    frames = (kwargs["in_channels"], config["n_prev"] + config["chunk_latent_frames"], 2, 3)
    value = (config["value_chunk"], kwargs["value_in_channels"])
    mask = torch.ones(1, config["text_len"], dtype=torch.uint8)
    mask[:, 6:] = 0
    tensors = {
        "cond_latents": normal(views, kwargs["in_channels"], config["n_prev"], 2, 3),
        "prompt_embeds": normal(1, config["text_len"], kwargs["caption_channels"]),
        "prompt_mask": mask,
        "history_action_state": normal(1, 1, kwargs["action_in_channels"]),
        "action_noise": normal(1, config["action_chunk"], kwargs["action_in_channels"]),
        "video_draw.final": normal(views, *frames),
        "value_draw.final": normal(1, *value),
    }
    for k in range(int(EXPLORE["explore_steps"])):
        tensors[f"video_draw.{k}"] = normal(int(n) * views, *frames)
        tensors[f"value_draw.{k}"] = normal(int(n) * int(m), *value)
    write(folder, "07_plan_inputs", tensors)
    return Fixture("07_plan_inputs", {"explore_config": EXPLORE}, tensors)


def recording(
    plan: tuple[Tensor, list[PlainIteration]], mode: str, per_view: bool, num_memory_frames: int
) -> dict[str, Tensor]:
    """The tensors of a planning fixture, under its names. The memory frames of the video Gaussians are zeros."""
    action, iterations = plan
    tensors = {"action": action[None]}
    for k, iteration in enumerate(iterations):
        tensors["snr" + ("" if mode == "paper" else "_as_attributed") + f".{k}"] = iteration.snr
        tensors[f"video_elites.{k}"], tensors[f"value_elites.{k}"] = iteration.video_elites, iteration.value_elites
        for part, name in enumerate(("mean", "std")):
            video = iteration.video[part] if per_view else iteration.video[part][0]
            shape = list(video.shape)
            shape[-3] = num_memory_frames
            suffix = "" if per_view else f".{k}"
            tensors[f"video_{name}{suffix}"] = torch.cat([torch.zeros(shape), video], dim=-3)
            tensors[f"value_{name}{suffix}"] = iteration.value[part]
    return tensors


def write(folder: Path, name: str, tensors: dict[str, Tensor]) -> None:
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / f"{name}.safetensors")
    (folder / f"{name}.json").write_text(json.dumps({"explore_config": EXPLORE}))


def test_plans_agree_with_the_plain_path_on_another_configuration(other: Path) -> None:
    checks = check_planner(other)
    assert {check.fixture for check in checks} == set(MODES)
    assert [check for check in checks if not check.ok] == []
    assert any(check.tensor == "per_view.action" for check in checks)


def test_a_different_plan_fails_the_checks(other: Path, tmp_path: Path) -> None:
    """Swapped value draws change scores and actions, which the comparison must report."""
    for file in other.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tmp_path / "07_plan_inputs.safetensors")
    tensors["value_draw.0"] = rearrange(tensors["value_draw.0"], "(n m) t c -> (m n) t c", m=2)
    write(tmp_path, "07_plan_inputs", tensors)
    failed = [check for check in check_planner(tmp_path) if not check.ok]
    assert {"snr.0", "action"} <= {check.tensor for check in failed}
