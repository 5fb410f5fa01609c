"""Initial weights of the three transformers: every residual branch starts small, and the action expert starts deaf to
the value expert.

A tensor's numbers follow from the seed and its name. This module knows no data.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor, nn

from wavserve.core.spec import ModelConfig
from wavserve.models.networks.expert import action_dit, value_dit
from wavserve.models.networks.video import VideoDiT
from wavserve.models.weights.weights import Models

_GATES = (2, 5)
"""Rows of a block's table that gate its self-attention and its feed-forward."""


def initial_models(config: ModelConfig, seed: int) -> Models:
    """The three transformers, ready to be trained."""
    models = Models(VideoDiT(config), value_dit(config), action_dit(config))
    for group, module in (("video", models.video), ("value", models.value), ("action", models.action)):
        initialise(module, f"{seed}:{group}")
    return models


@torch.no_grad()
def initialise(module: nn.Module, seed: str) -> None:
    """Sets every parameter of a transformer, or of another module of linear layers. The same seed gives the same."""
    for name, parameter in module.named_parameters():
        parameter.copy_(_initial(name, parameter.shape, named_generator(f"{seed}:{name}")))


def named_generator(name: str) -> torch.Generator:
    """A generator whose draws follow from a name."""
    digest = hashlib.sha256(name.encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def _initial(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    normal = torch.randn(shape, generator=generator)
    match name.rsplit(".", 1)[-1]:
        case "view_embed":
            return normal * 0.5
        case "scale_shift_table":
            return _table(normal)
        case "bias":
            return torch.zeros(shape)
    if ".norm_" in name:
        return torch.ones(shape)
    return normal * _gain(name) * math.sqrt(2 / (shape[0] + shape[1]))


def _table(normal: Tensor) -> Tensor:
    """A block's gates start around a half, so that its branches are heard from the first step on."""
    table = normal / math.sqrt(normal.shape[-1])
    if len(table) == 6:
        table[list(_GATES)] += 0.5
    return table


def _gain(name: str) -> float:
    """What a matrix's variance-preserving scale is multiplied by."""
    if name.endswith("attn3.to_out.0.weight"):
        return 0.0  # untrained value features would disturb the actions
    if name.endswith("attn2.to_out.0.weight"):
        return 0.5
    if name.endswith("time_embed.linear.weight") or name.startswith("view_ada"):
        return 0.25
    return 0.1 if name == "proj_out.weight" else 1.0
