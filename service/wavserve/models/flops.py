"""Floating-point operations of a plan in closed form, for the plain and the fast path.

Only matrix products and attention count. A multiply-add counts as two. The formulas know sizes only. `counted` measures
a function with torch's own counter, to check the formulas.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from wavserve.core.spec import ExpertConfig, LatentSpec, ModelConfig, PlannerConfig
from wavserve.models.networks.maths import TIME_CHANNELS
from wavserve.models.networks.video import is_joint


@dataclass(frozen=True, slots=True)
class Workload:
    """Sizes of a plan. The prompt has `num_prompt` tokens; the plain path pads it to `num_padded`."""

    config: ModelConfig
    latent: LatentSpec
    planner: PlannerConfig
    num_views: int
    chunk: int
    num_prompt: int
    num_padded: int

    @property
    def num_tokens(self) -> int:
        """Tokens of a video sample, over all views."""
        return self.num_views * self.latent.num_tokens


@dataclass(frozen=True, slots=True)
class Flops:
    """Floating-point operations by verb."""

    imagine: float
    """per video sample"""
    score: float
    """per video sample, with all its M value samples"""
    decode: float
    """per plan"""
    text: float
    """per plan: the instruction's keys and values"""
    num_scored: int
    """video samples scored in a plan: K N"""

    @property
    def plan(self) -> float:
        """Operations of a whole plan: K iterations over N video samples, and one more sample imagined and decoded."""
        return self.num_scored * (self.imagine + self.score) + self.imagine + self.decode + self.text


def plain(work: Workload) -> Flops:
    """Operations of the authors' code.

    It projects features for every row and flow step, and text and timesteps for every forward.
    """
    video, planner = work.config.video, work.planner
    tokens, width = work.num_tokens, video.width
    imagine = _video_blocks(work, work.num_padded) + _text(work, work.num_padded) + _time(tokens, width)
    imagine += _linear(work.num_views, width, 6 * width) + _linear(tokens, width, video.out_channels)
    features = _key_value(work.config.value, tokens, width, video.num_layers)
    value = (
        _expert(work, work.config.value, work.chunk, [tokens]) + _time(work.chunk, work.config.value.width) + features
    )
    rows = work.chunk + 1
    action = _expert(work, work.config.action, rows, [tokens, work.chunk]) + _time(rows, work.config.action.width)
    action += _action_key_value(work)
    return _plan(work, imagine, value, value + planner.num_flow_steps * action, 0.0)


def fast(work: Workload) -> Flops:
    """Operations of the fast path.

    It projects features once per video sample and text once per plan. It caches timestep embeddings.
    """
    video, planner = work.config.video, work.planner
    tokens, width = work.num_tokens, video.width
    imagine = _video_blocks(work, work.num_prompt)
    features = _key_value(work.config.value, tokens, width, video.num_layers)
    value = _expert(work, work.config.value, work.chunk, [tokens])
    action = _expert(work, work.config.action, work.chunk + 1, [tokens, work.chunk])
    decode = features + value + _action_key_value(work) + planner.num_flow_steps * action
    once = features / (planner.num_value_samples * planner.num_flow_steps)
    return _plan(work, imagine, value + once, decode, _text(work, work.num_prompt))


def counted(run: Callable[[], object]) -> float:
    """Operations that torch counts in `run`. Attention runs as plain products: torch counts no other form on a CPU."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        run()
    return float(counter.get_total_flops())


def _plan(work: Workload, imagine: float, value: float, decode: float, text: float) -> Flops:
    planner = work.planner
    imagine *= planner.num_video_steps
    score = planner.num_value_samples * planner.num_flow_steps * value
    return Flops(imagine, score, decode, text, planner.num_iterations * planner.num_video_samples)


def _linear(rows: int, in_width: int, out_width: int) -> float:
    return 2.0 * rows * in_width * out_width


def _attention(queries: int, keys: int, width: int) -> float:
    return 4.0 * queries * keys * width


def _time(rows: int, width: int) -> float:
    return _linear(rows, TIME_CHANNELS, width) + _linear(rows, width, width) + _linear(rows, width, 6 * width)


def _video_blocks(work: Workload, prompt: int) -> float:
    """The video model's input projection and blocks, without time embeddings and without the text's keys and values."""
    tokens, width, per_view = work.num_tokens, work.config.video.width, work.latent.num_tokens
    total = _linear(tokens, work.config.video.in_channels, width)
    for layer in range(work.config.video.num_layers):
        num_keys = tokens if is_joint(layer) else per_view
        total += 6 * _linear(tokens, width, width) + 2 * _linear(tokens, width, 4 * width)
        total += _attention(tokens, num_keys, width) + _attention(tokens, prompt, width)
    return total


def _text(work: Workload, prompt: int) -> float:
    """The caption projection and the text's keys and values in every block."""
    video = work.config.video
    caption = _linear(prompt, video.caption_channels, video.width) + _linear(prompt, video.width, video.width)
    return caption + video.num_layers * 2 * _linear(prompt, video.width, video.width)


def _expert(work: Workload, expert: ExpertConfig, rows: int, contexts: list[int]) -> float:
    """One forward of `rows` tokens, without time embeddings and without the contexts' keys and values."""
    width = expert.width
    block = 4 * _linear(rows, width, width) + _attention(rows, rows, width) + 2 * _linear(rows, width, 4 * width)
    block += sum(2 * _linear(rows, width, width) + _attention(rows, length, width) for length in contexts)
    ends = _linear(rows, expert.in_channels, width) + _linear(rows, width, expert.out_channels)
    return work.config.video.num_layers * block + ends


def _key_value(expert: ExpertConfig, length: int, context_width: int, num_layers: int) -> float:
    return num_layers * 2 * _linear(length, context_width, expert.width)


def _action_key_value(work: Workload) -> float:
    config = work.config
    from_video = _key_value(config.action, work.num_tokens, config.video.width, config.video.num_layers)
    return from_video + _key_value(config.action, work.chunk, config.value.width, config.video.num_layers)
