"""Reads `diffusion_model.config` of the authors' configuration into the sizes of the three transformers.

A setting that our networks do not support raises BundleError naming it. This module knows nothing of weights.
"""

from __future__ import annotations

from dataclasses import replace

from wavserve.core.spec import ExpertConfig, ModelConfig, VideoConfig
from wavserve.models.weights.sections import Section

_ROPE_BASES = {"action": 54, "value": 57}  # constants of the released code, for any chunk length
_FIXED = {
    "patch_size": 1,
    "patch_size_t": 1,
    "activation_fn": "gelu-approximate",
    "norm_elementwise_affine": False,
    "attention_bias": True,
    "attention_out_bias": True,
    "use_view_embed": True,
    "action_final_embeddings": True,
    "value_final_embeddings": True,
    "learnable_action_state": False,
    "learnable_value_state": False,
    "action_rope_base_seq_length": _ROPE_BASES["action"],
    "value_rope_base_seq_length": _ROPE_BASES["value"],
}
_SIZES = {
    *("num_layers", "num_attention_heads", "attention_head_dim", "in_channels", "out_channels", "caption_channels"),
    *("cross_attention_dim", "qk_norm", "norm_eps", "max_view", "action_expert", "value_expert"),
    *(
        f"{expert}_{key}"
        for expert in _ROPE_BASES
        for key in ("in_channels", "out_channels", "num_attention_heads", "attention_head_dim", "rope_dim")
    ),
}


def read_model(section: Section) -> ModelConfig:
    """Sizes of the three transformers from `diffusion_model.config`.

    Raises BundleError naming a key that is missing, unknown or has a value that is not supported.
    """
    section.require_known(_SIZES | set(_FIXED))
    section.require("action_expert", True)
    section.require("value_expert", True)
    section.require("qk_norm", "rms_norm_across_heads")
    for key, value in _FIXED.items():
        section.allow(key, value)
    video = VideoConfig(
        in_channels=section.count("in_channels"),
        out_channels=section.count("out_channels"),
        num_layers=section.count("num_layers"),
        num_heads=section.count("num_attention_heads"),
        head_dim=section.count("attention_head_dim"),
        caption_channels=section.count("caption_channels"),
        max_views=section.count("max_view", otherwise=3),
    )
    section.require("cross_attention_dim", video.width)
    model = ModelConfig(video, _expert(section, "value"), _expert(section, "action"))
    return replace(model, norm_eps=section.number("norm_eps")) if "norm_eps" in section else model


def _expert(section: Section, name: str) -> ExpertConfig:
    in_channels = section.count(f"{name}_in_channels")
    expert = ExpertConfig(
        in_channels=in_channels,
        out_channels=section.count(f"{name}_out_channels", otherwise=in_channels),
        num_heads=section.count(f"{name}_num_attention_heads"),
        head_dim=section.count(f"{name}_attention_head_dim"),
        rope_base=_ROPE_BASES[name],
    )
    section.allow(f"{name}_rope_dim", expert.width)
    return expert
