"""Weights of the three transformers under the official names: loading, checking, saving, drawing random ones.

One checkpoint holds all three, and each can be loaded alone. This module knows nothing of policies.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor, nn

from wavserve.core.errors import BundleError
from wavserve.core.spec import ModelConfig
from wavserve.models.networks.expert import ExpertDiT, action_dit, value_dit
from wavserve.models.networks.video import VideoDiT
from wavserve.models.weights import checkpoint

Group = Literal["video", "value", "action"]
GROUPS: tuple[Group, ...] = ("video", "value", "action")
_PREFIX: Mapping[Group, str] = {"video": "", "value": "value_", "action": "action_"}
_BUILD: Mapping[Group, Callable[[ModelConfig], nn.Module]] = {
    "video": VideoDiT,
    "value": value_dit,
    "action": action_dit,
}
_MAX_LISTED = 10
Device = torch.device | str


@dataclass(frozen=True, slots=True)
class Models:
    """The three transformers of one checkpoint."""

    video: VideoDiT
    value: ExpertDiT
    action: ExpertDiT

    def to(self, device: Device) -> Models:
        """The models on a device. The modules themselves are moved, as with `nn.Module.to`."""
        return Models(self.video.to(device), self.value.to(device), self.action.to(device))


def load(path: Path, config: ModelConfig, device: Device = "cpu", dtype: torch.dtype = torch.float32) -> Models:
    """All three transformers of a checkpoint: a safetensors file, an index of shards, or a folder with either.

    They are in evaluation mode, without gradients. Raises BundleError as `check` does.
    """
    check(path, config)
    video = load_video(path, config, device, dtype)
    value, action = (load_expert(path, config, group, device, dtype) for group in GROUPS[1:])
    return Models(video, value, action)


def load_video(path: Path, config: ModelConfig, device: Device = "cpu", dtype: torch.dtype = torch.float32) -> VideoDiT:
    """The video transformer alone; see `load`."""
    return cast(VideoDiT, _load(path, config, "video", device, dtype))


def load_expert(
    path: Path, config: ModelConfig, group: Group, device: Device = "cpu", dtype: torch.dtype = torch.float32
) -> ExpertDiT:
    """The value or the action expert alone; see `load`."""
    return cast(ExpertDiT, _load(path, config, group, device, dtype))


def shapes(config: ModelConfig, groups: Iterable[Group] = GROUPS) -> dict[str, tuple[int, ...]]:
    """Official name -> shape of every tensor of the groups. Nothing is allocated."""
    return {
        _PREFIX[group] + name: tuple(tensor.shape)
        for group in groups
        for name, tensor in _skeleton(config, group).state_dict().items()
    }


def check(path: Path, config: ModelConfig, groups: Sequence[Group] = GROUPS) -> None:
    """Compares a checkpoint's names and shapes with those of the configuration. Only headers are read.

    Raises BundleError with the counts and first names of missing, unexpected and misshapen tensors, or naming a file
    that cannot be read.
    """
    expected = shapes(config, groups)
    actual = {name: shape for name, shape in checkpoint.headers(path).items() if _group_of(name) in groups}
    misshapen = {name for name in actual if name in expected and actual[name] != expected[name]}
    problems = [
        _listed("missing", [name for name in expected if name not in actual]),
        _listed("unexpected", [name for name in actual if name not in expected]),
        _listed(
            "of wrong shape", [f"{name} (expected {expected[name]}, got {actual[name]})" for name in sorted(misshapen)]
        ),
    ]
    if any(problems):
        raise BundleError(f"weights {path}: " + "; ".join(filter(None, problems)))


def save(models: Models, folder: Path, max_shard_bytes: int = checkpoint.MAX_SHARD_BYTES) -> None:
    """Writes the three transformers under their official names into `folder`, in shards where they are large."""
    modules: Sequence[nn.Module] = (models.video, models.value, models.action)
    state = {_PREFIX[group] + n: t for group, m in zip(GROUPS, modules, strict=True) for n, t in m.state_dict().items()}
    sizes = {name: tensor.numel() * tensor.element_size() for name, tensor in state.items()}
    # clones, because safetensors refuses tensors that share storage
    checkpoint.write(folder, sizes, lambda name: state[name].cpu().clone(), max_shard_bytes=max_shard_bytes)


def save_random(
    config: ModelConfig,
    folder: Path,
    seed: int,
    dtype: torch.dtype = torch.float32,
    progress: Callable[[float], None] | None = None,
) -> None:
    """Writes seeded random weights into `folder`, in shards where they are large, with one shard in memory at a time.

    The same seed gives the same tensors on every machine. `progress` is called with the fraction written.
    """
    wanted = shapes(config)
    sizes = {name: math.prod(shape) * dtype.itemsize for name, shape in wanted.items()}
    checkpoint.write(folder, sizes, lambda name: random_tensor(name, wanted[name], seed).to(dtype), progress)


def random_models(config: ModelConfig, seed: int, dtype: torch.dtype = torch.float32) -> Models:
    """The three transformers with the weights that `save_random` writes, in memory."""
    value, action = (cast(ExpertDiT, _random(config, group, seed, dtype)) for group in ("value", "action"))
    return Models(random_video(config, seed, dtype), value, action)


def random_video(config: ModelConfig, seed: int, dtype: torch.dtype = torch.float32) -> VideoDiT:
    """The video transformer of `random_models`, alone."""
    return cast(VideoDiT, _random(config, "video", seed, dtype))


def _random(config: ModelConfig, group: Group, seed: int, dtype: torch.dtype) -> nn.Module:
    wanted = shapes(config, [group])
    state = {name: random_tensor(name, shape, seed).to(dtype) for name, shape in wanted.items()}
    return _assign(_skeleton(config, group), state, group)


def random_tensor(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """Random float32 weights of one name.

    They are uniform, because normal draws take logarithms, which machines round differently. Matrices preserve the
    variance of their input. Biases, tables and norm weights are random too, so that tests cover them.
    """
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    draw = torch.rand(shape, generator=generator, dtype=torch.float32, device="cpu").mul_(2).sub_(1)
    if name.endswith(("norm_q.weight", "norm_k.weight")):
        return draw.mul_(0.4).add_(1)
    if name.endswith(("view_embed", "scale_shift_table")):
        return draw.mul_(0.5)
    if name.endswith("bias"):
        return draw.mul_(0.2)
    return draw.mul_(math.sqrt(3 / shape[-1]))


def _skeleton(config: ModelConfig, group: Group) -> nn.Module:
    with torch.device("meta"):
        return _BUILD[group](config)


def _load(path: Path, config: ModelConfig, group: Group, device: Device, dtype: torch.dtype) -> nn.Module:
    check(path, config, [group])
    tensors = checkpoint.tensors(path, lambda name: _group_of(name) == group)
    # copies, so that no weight is a view of a file that may be replaced
    state = {name: tensor.to(device, dtype, copy=True) for name, tensor in tensors}
    return _assign(_skeleton(config, group), state, group)


def _assign(module: nn.Module, state: Mapping[str, Tensor], group: Group) -> nn.Module:
    own = {name.removeprefix(_PREFIX[group]): tensor for name, tensor in state.items()}
    module.load_state_dict(own, strict=True, assign=True)
    return module.eval().requires_grad_(False)


def _group_of(name: str) -> Group:
    experts = (group for group in GROUPS if _PREFIX[group] and name.startswith(_PREFIX[group]))
    return next(experts, "video")


def _listed(what: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return f"{len(names)} {what}: {', '.join(names[:_MAX_LISTED])}{more}" if names else ""
