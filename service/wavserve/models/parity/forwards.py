"""Parity of single parts: rotary tables, schedule, norms, and one forward of each model (fixtures 01 to 04 and 11).

Each function yields the tensors to compare. The formulas are in the fixtures' JSON files.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from wavserve.models.fast.fused import apply_rotary
from wavserve.models.networks import flow
from wavserve.models.networks.layers import Block, Context
from wavserve.models.networks.maths import rotate, token_rotary, unpack, video_rotary
from wavserve.models.networks.plain import MASKED
from wavserve.models.parity.fixtures import Fixture
from wavserve.models.parity.subject import Compared, Subject, buffers, layers, row_of, unpadded


def tables(subject: Subject, fixture: Fixture) -> Iterator[Compared]:
    """Fixture 01: rotary tables and rotation, schedule and Euler steps, time embeddings."""
    model = subject.config.model
    video = video_rotary(model, subject.config.latent)
    value, action = (
        token_rotary(len(fixture[f"{name}_rope_cos"]), expert.rope_base, expert.width, model.rope_theta)
        for name, expert in (("value", model.value), ("action", model.action))
    )
    for name, table in (("video", video), ("value", value), ("action", action)):
        yield "plain", f"{name}_rope_cos", table.cos, fixture[f"{name}_rope_cos"]
        yield "plain", f"{name}_rope_sin", table.sin, fixture[f"{name}_rope_sin"]
    yield "plain", "rope_apply_out", rotate(fixture["rope_apply_in"], video), fixture["rope_apply_out"]
    yield (
        "fast",
        "rope_apply_out",
        apply_rotary(fixture["rope_apply_in"].clone(), video.interleaved()),
        fixture["rope_apply_out"],
    )
    sigmas = flow.schedule(len(fixture["timesteps"]))
    yield "plain", "sigmas", sigmas, fixture["sigmas"]
    yield "plain", "timesteps", sigmas[:-1] * flow.TIMESTEPS, fixture["timesteps"]
    samples: list[Tensor] = []
    start, velocity = fixture["euler_sample0"], fixture["euler_velocity"]
    flow.integrate(lambda x, sigma: velocity, start, len(sigmas) - 1, samples.append)
    yield "plain", "euler_after_each_step", torch.stack(samples), fixture["euler_after_each_step"]
    models = subject.models
    for prefix, embed in (
        ("", models.video.time_embed),
        ("value_", models.value.time_embed),
        ("action_", models.action.time_embed),
    ):
        temb, embedded = embed(fixture["time_query"])
        yield "plain", f"{prefix}time_embed_temb", temb, fixture[f"{prefix}time_embed_temb"]
        yield "plain", f"{prefix}time_embed_embedded", embedded, fixture[f"{prefix}time_embed_embedded"]


def video_forward(subject: Subject, fixture: Fixture) -> Iterator[Compared]:
    """Fixture 02: features and velocity of the video model."""
    config, num_views = subject.config, subject.config.num_views
    tokens, timestep, theirs = (
        rearrange(fixture[name], "(b v) l ... -> b (v l) ...", v=num_views)
        for name in ("hidden_states", "timestep", "video_velocity")
    )
    theirs_after = buffers(fixture, "buffer", config, num_views)
    text = Context(fixture["prompt_embeds"], (1 - fixture["prompt_mask"].float()) * MASKED)
    rotary = video_rotary(config.model, config.latent)
    out = subject.models.video(tokens, timestep, text, rotary)
    yield "plain", "video_velocity", out.velocity, theirs
    yield from layers("plain", "buffer", out.features, theirs_after)
    temb = subject.models.video.embed_time(timestep, num_views)[0]
    ends = rearrange(temb, "b (v l) c -> (b v) l c", v=num_views)[:, [0, -1]]
    yield "plain", "mid_temb_block_input", ends, fixture["mid_temb_block_input"]
    first = config.latent.num_memory_frames * config.latent.tokens_per_frame
    for b in range(len(tokens)):
        features, velocity = _fast_video(subject, fixture, b)
        per_view = rearrange(theirs[b], "(v l) c -> v l c", v=num_views)
        yield "fast", f"video_velocity[{b}]", velocity, unpack(per_view[:, first:], config.latent)
        yield from layers("fast", f"[{b}] buffer", features, row_of(theirs_after, b))


def _fast_video(subject: Subject, fixture: Fixture, b: int) -> tuple[list[Tensor], Tensor]:
    """Features and velocity of sample `b` of fixture 02, through the fast path."""
    num_views, num_memory = subject.config.num_views, subject.config.latent.num_memory_frames
    latents = unpack(fixture["hidden_states"], subject.config.latent)[b * num_views : (b + 1) * num_views]
    sigma = fixture["timestep"][b * num_views, -1].item() / flow.TIMESTEPS
    text = subject.video.text_kv(unpadded(fixture["prompt_embeds"][b], fixture["prompt_mask"][b]))
    memory, future = latents[None, :, :, :num_memory], latents[None, None, :, :, num_memory:]
    features: list[Tensor] = []
    subject.video.run(memory, future, sigma, [text], lambda layer, x: features.append(x.clone()))
    velocity = subject.video.run(memory, future, sigma, [text], velocity=True)
    assert velocity is not None
    return features, velocity[0, 0]


def value_forward(subject: Subject, fixture: Fixture) -> Iterator[Compared]:
    """Fixture 03: features and velocity of the value expert, on the video features of fixture 02."""
    models, config = subject.models, subject.config
    video = buffers(subject.other("02_video_forward"), "buffer", config, config.num_views)
    states, timestep = fixture["value_states"], fixture["value_timestep"]
    out = models.value(states, timestep, video)
    yield "plain", "value_velocity", out.velocity, fixture["value_velocity"]
    yield from layers("plain", "value_buffer", out.features, buffers(fixture, "value_buffer", config))
    frozen = models.value.head(out.features[-1], models.value.time_embed(fixture["frozen_timestep"])[1])
    yield "plain", "frozen_value_velocity", frozen, fixture["frozen_value_velocity"]
    for b in _uniform_rows(timestep):
        kv = subject.value.cross_kv(row_of(video, b).__getitem__)
        ours = subject.value.velocity(states[b, None, None], timestep[b, 0].item() / flow.TIMESTEPS, kv)[0, 0]
        yield "fast", f"value_velocity[{b}]", ours, fixture["value_velocity"][b]


def action_forward(subject: Subject, fixture: Fixture) -> Iterator[Compared]:
    """Fixture 04: velocity of the action expert, on the features of fixtures 02 and 03."""
    config = subject.config
    video = buffers(subject.other("02_video_forward"), "buffer", config, config.num_views)
    recorded_value = buffers(subject.other("03_value_forward"), "value_buffer", config)
    recorded_history = fixture["history_action_state"]
    states, timestep = fixture["action_states"], fixture["action_timestep"]
    variants = {
        "action_velocity": (recorded_history, recorded_value),
        "action_velocity_no_history": (None, recorded_value),
        "action_velocity_no_value": (recorded_history, None),
    }
    for name, (history, value) in variants.items():
        yield "plain", name, subject.models.action(states, timestep, video, value, history).velocity, fixture[name]
        for b in _uniform_rows(timestep):
            row, sigma = slice(b, b + 1), timestep[b, 0].item() / flow.TIMESTEPS
            video_kv = subject.action.cross_kv(row_of(video, b).__getitem__)
            value_kv = None if value is None else subject.action.value_kv(row_of(value, b).__getitem__)
            history_row = None if history is None else history[row, 0]
            ours = subject.action.velocity(states[row], sigma, history_row, video_kv, value_kv)
            yield "fast", f"{name}[{b}]", ours, fixture[name][row]


def norms(subject: Subject, fixture: Fixture) -> Iterator[Compared]:
    """Fixture 11: the normalisations on small inputs, where the epsilons matter."""
    x, model = fixture["x"], subject.config.model
    block = subject.models.video.transformer_blocks[0]
    assert isinstance(block, Block)
    yield "plain", "block_norm1", F.rms_norm(x, x.shape[-1:], eps=block.eps), fixture["block_norm1"]
    yield "plain", "attn1_norm_q", block.attn1.norm_q(x), fixture["attn1_norm_q"]
    yield "plain", "norm_out", F.layer_norm(x, x.shape[-1:], eps=model.out_norm_eps), fixture["norm_out"]


def _uniform_rows(timestep: Tensor) -> list[int]:
    """Rows whose tokens share one timestep. The fast path supports only those."""
    return [b for b in range(len(timestep)) if bool((timestep[b] == timestep[b, 0]).all())]
