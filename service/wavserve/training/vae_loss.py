"""The first stage: the autoencoder learns single frames, and the clip between two of them.

Serving encodes each frame alone, and decodes a memory frame and a future one to nine frames. So the latents of a clip
are those of its first and its last frame, and the decoder learns what lies between. The squared error weighs more where
pictures change: the table never moves, and the gripper is small. Knows neither files nor the loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from wavserve.training.checkpoint import required
from wavserve.training.draws import Draws
from wavserve.training.frames import decode_frames, encode_frames
from wavserve.training.pictures import FrameBatch, Pictures
from wavserve.training.readout import Readout
from wavserve.training.recipe import Recipe

_NUM_MEASURED, _NUM_EVALUATED, _LARGEST_WEIGHT = 400, 64, 5.0


@dataclass(frozen=True, slots=True, eq=False)
class Scales:
    """What is measured once on the training's pictures and then stays."""

    weights: Tensor
    """of the squared error, `[V, 1, 1, height, width]`; their mean is 1"""
    mean: Tensor
    """of the positions, `[12]` in m"""
    std: Tensor

    def tensors(self) -> dict[str, Tensor]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Scales:
        """From a checkpoint. Raises BundleError where one is missing."""
        return cls(**required(tensors, [field.name for field in fields(cls)]))


def measure_scales(pictures: Pictures, seed: int) -> Scales:
    """From a sample of the pictures."""
    batch = pictures.draw((seed, 0), min(_NUM_MEASURED, 4 * len(pictures)), is_clip=False)
    change = batch.frames.std(dim=0).mean(dim=1, keepdim=True)
    weights = (0.5 + 1.5 * change / change.mean(dim=(-2, -1), keepdim=True).clamp(min=1e-6)).clamp(max=_LARGEST_WEIGHT)
    return Scales(
        weights / weights.mean(dim=(-2, -1), keepdim=True),
        batch.positions.mean(dim=0),
        batch.positions.std(dim=0).clamp(min=0.01),
    )


class VaeObjective:
    """See `trainer.Objective`."""

    def __init__(
        self, networks: tuple[Any, Readout], pictures: tuple[Pictures, Pictures], scales: Scales, recipe: Recipe
    ) -> None:
        """`networks`: the autoencoder and the read-out. `pictures`: those to learn from, and those held out."""
        (self._vae, self._readout), self._recipe, self._seed = networks, recipe.vae, recipe.seed
        (self._pictures, self._held_out), self._scales = pictures, scales
        self._device = self._readout.view.device

    def modules(self) -> Mapping[str, nn.Module]:
        return {"encoder": self._vae.encoder, "decoder": self._vae.decoder, "readout": self._readout}

    def fixed(self) -> Mapping[str, Tensor]:
        return self._scales.tensors()

    def losses(self, step: int) -> dict[str, Tensor]:
        recipe = self._recipe
        is_clip = step % recipe.clip_every == recipe.clip_every - 1
        size = recipe.clip_batch_size if is_clip else recipe.optimisation.batch_size
        batch = self._pictures.draw((self._seed, 1, step), size, is_clip)
        draws = Draws(self._seed, "vae", step, self._device)
        terms = self._terms(batch, draws, recipe.latent_noise)
        loss = terms["squared"] + recipe.absolute_weight * terms["absolute"]
        loss = loss + recipe.readout_weight * terms["readout"] + recipe.latent_weight * terms.pop("latents")
        named = {f"{name}, clip" if is_clip else name: term for name, term in terms.items()}
        return {"loss": loss, **named}

    def evaluate(self) -> dict[str, float]:
        """PSNR in dB, unweighted, and the mean error of the positions that the read-out finds, in mm."""
        figures = {}
        for name, is_clip, size in (("", False, _NUM_EVALUATED), (", clip", True, _NUM_EVALUATED // 8)):
            batch = self._held_out.draw((self._seed, 2), size, is_clip)
            decoded, found, _ = self._through(batch, None, 0.0)
            error = (decoded.float().clamp(-1, 1) - batch.frames.to(self._device)).square().mean() / 4
            off = (found.float().cpu() * self._scales.std + self._scales.mean - batch.positions).abs().mean(dim=0)
            figures[f"PSNR{name}"] = -10 * error.clamp(min=1e-9).log10().item()
            figures[f"object mm{name}"] = off[:3].mean().item() * 1000
        return figures

    def _terms(self, batch: FrameBatch, draws: Draws, noise: float) -> dict[str, Tensor]:
        precision = self._recipe.optimisation.precision
        with torch.autocast(self._device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            decoded, found, latents = self._through(batch, draws, noise)
        error = decoded.float() - batch.frames.to(self._device)
        weights = self._scales.weights.to(self._device)
        positions = ((batch.positions - self._scales.mean) / self._scales.std).to(self._device)
        return {
            "squared": (weights * error.square()).mean(),
            "absolute": (weights * error.abs()).mean(),
            "readout": F.smooth_l1_loss(found.float(), positions),
            "latents": latents.float().square().mean(),
        }

    def _through(self, batch: FrameBatch, draws: Draws | None, noise: float) -> tuple[Tensor, Tensor, Tensor]:
        """Decoded frames `[B, V, 3, F, h, w]`, read positions at the last frame `[B, 12]`, latents."""
        num_views, num_frames = batch.frames.shape[1], batch.frames.shape[3]
        rows = rearrange(batch.frames.to(self._device), "b v c f h w -> (b v) c f h w")
        latents = self._encode(rows)
        noisy = latents if draws is None else latents + noise * draws.normal(*latents.shape)
        decoded = decode_frames(self._vae, noisy[:, :, 0]).unsqueeze(2) if num_frames == 1 else self._vae.decoder(noisy)
        last = rearrange(noisy[:, :, -1], "(b v) c h w -> b v c h w", v=num_views)
        found = self._readout(last, batch.task.to(self._device))
        return rearrange(decoded, "(b v) c f h w -> b v c f h w", v=num_views), found, latents

    def _encode(self, rows: Tensor) -> Tensor:
        """Latents `[R, C, 1 or 2, H, W]` of the first frame of `rows [R, 3, F, height, width]`, and of the last one."""
        ends = rows if rows.shape[2] == 1 else rows[:, :, [0, -1]]
        latents = encode_frames(self._vae, rearrange(ends, "r c f h w -> (r f) c h w"))
        return rearrange(latents, "(r f) c h w -> r c f h w", f=ends.shape[2])
