"""The reference plan of one observation, by the plain path and without planning.

The golden plan of a bundle is one, and so is what a policy does in a demonstration. Knows neither files nor serving.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wavserve.core import noise
from wavserve.core.noise import FINAL, Stream
from wavserve.core.normalise import Normaliser
from wavserve.core.options import merge_options
from wavserve.core.spec import PolicySpec
from wavserve.core.types import Array
from wavserve.models.networks.plain import Draws, Plain, Scene, plain_plan


def first_scene(spec: PolicySpec, latents: Array, text: Array, state: Array) -> Scene:
    """What the plan of a session's first observation is conditioned on: its frame fills the whole memory.

    `latents`: `[V, C, H, W]` of the frame. `text`: `[P, C]`. `state`: `[S]` in declared units.
    """
    frame = torch.from_numpy(latents)
    memory = frame[:, :, None].expand(-1, -1, spec.latent.num_memory_frames, -1, -1)
    history = torch.from_numpy(Normaliser(spec).history(state))
    return Scene(memory, torch.from_numpy(text), torch.ones(len(text), dtype=torch.uint8), history)


def named_draws(spec: PolicySpec, key: tuple[int, int]) -> Draws:
    """The named noise of a plan without iterations. `key`: seed, and the plan's sequence number in its session."""
    latent, video = spec.latent, spec.model.video

    def draw(stream: Stream, *shape: int) -> Tensor:
        return torch.from_numpy(noise.draw(key, stream, FINAL, 0, shape))

    frames = draw(
        Stream.VIDEO, spec.num_views, video.in_channels, latent.num_future_frames, latent.height, latent.width
    )
    value = draw(Stream.VALUE, spec.num_value_tokens, spec.model.value.in_channels)
    action = draw(Stream.ACTION, spec.chunk, spec.model.action.in_channels)
    return Draws(frames[None, :0], value[None, :0], frames, value, action)


def reference_actions(plain: Plain, spec: PolicySpec, scene: Scene, draws: Draws, state: Array) -> Array:
    """Commands `[T, A]` in declared units. Raises BackendError when one is not finite."""
    config = merge_options(spec.planner, spec.bounds, {"mode": "off"})
    output, _ = plain_plan(plain, scene, draws, config)
    return Normaliser(spec).actions(output.numpy(), state)
