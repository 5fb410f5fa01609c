"""Pixels to latents, latents to pixels, instructions to embeddings: a bundle's VAE and text encoder.

Called by the encoder's runner. Loads from the bundle's folder alone and never from a network; knows nothing of plans.
The networks are diffusers' `AutoencoderKLLTXVideo` and transformers' `T5EncoderModel`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLLTXVideo
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoTokenizer, T5EncoderModel
from transformers.utils import logging as transformers_logging

from wavserve.bundle import bundle
from wavserve.core.errors import BundleError, InvalidRequest
from wavserve.core.noise import Stream, draw
from wavserve.core.types import Array

Pixels = NDArray[np.uint8]

# as diffusers' LTX pipelines have it: a decoder that is conditioned on time expects slightly noisy latents
_DECODE_TIMESTEP = 0.03
_DECODE_NOISE = 0.025
_CACHED_PIXELS = 1 << 18
"""Of frames encoded at a time on a CPU: more leave its cache, and take memory that the process keeps."""


class Encoder:
    """A bundle's encoders on one device. Rows do not influence each other."""

    def __init__(
        self, folder: Path, device: str = "cpu", dtype: torch.dtype = torch.float32, text_device: str | None = None
    ) -> None:
        """`text_device`: of the text encoder alone, which is large and asked once an instruction; None: `device`.

        Raises BundleError when the folder is no bundle or a part does not load.
        """
        # torch's default rounds float32 to TF32 on a GPU
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
        self._spec = bundle.load(folder).spec
        self._video = VideoCoder(_load(AutoencoderKLLTXVideo, folder / bundle.VAE, dtype).to(device))
        self._text = _load(T5EncoderModel, folder / bundle.TEXT_ENCODER, dtype).to(text_device or device).eval()
        self._tokenizer = _load_tokenizer(folder / bundle.TOKENIZER)

    def encode_images(self, pixels: Pixels) -> Array:
        """RGB `[B, V, height, width, 3]` -> normalised latents `[B, V, C, H, W]`, each frame encoded alone."""
        rows = rearrange(torch.from_numpy(pixels), "b v h w c -> (b v) c 1 h w").float() / 127.5 - 1
        latents = rearrange(self._video.encode(rows), "(b v) c 1 h w -> b v c h w", v=pixels.shape[1])
        return _to_numpy(latents)

    def decode_video(self, latents: Array) -> Pixels:
        """Normalised latents `[B, V, C, F, H, W]` -> RGB `[B, V, (F - 1) temporal_ratio + 1, height, width, 3]`."""
        rows = rearrange(torch.from_numpy(latents), "b v c f h w -> (b v) c f h w")
        frames = rearrange(self._video.decode(rows), "(b v) c f h w -> b v f h w c", v=latents.shape[1])
        pixels: Pixels = ((frames + 1) * 127.5).round_().clamp_(0, 255).to(torch.uint8).cpu().numpy()
        return pixels

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[bytes]) -> list[Array]:
        """UTF-8 instructions -> one embedding `[P, C]` each, P its own tokens and no padding.

        Raises InvalidRequest naming `instruction`: not UTF-8, or more than `max_prompt_tokens` tokens.
        """
        tokens = [self._tokenize(text) for text in texts]
        longest = self._spec.max_prompt_tokens if self._spec.pad_prompt else max(map(len, tokens))
        ids = torch.full((len(tokens), longest), self._tokenizer.pad_token_id, dtype=torch.int64)
        # the released code shows the text encoder its padding; whoever imports its weights must do the same
        mask = torch.full(ids.shape, int(self._spec.pad_prompt), dtype=torch.int64)
        for row, own in enumerate(tokens):
            ids[row, : len(own)] = torch.tensor(own)
            mask[row, : len(own)] = 1
        device = self._text.device
        states = self._text(input_ids=ids.to(device), attention_mask=mask.to(device)).last_hidden_state
        return [_to_numpy(state[: len(own)]) for state, own in zip(states, tokens, strict=True)]

    def _tokenize(self, text: bytes) -> list[int]:
        try:
            tokens: list[int] = self._tokenizer(text.decode()).input_ids
        except UnicodeDecodeError as error:
            raise InvalidRequest("instruction", "UTF-8 text", str(error)) from error
        if len(tokens) > self._spec.max_prompt_tokens:
            raise InvalidRequest("instruction", f"at most {self._spec.max_prompt_tokens} tokens", len(tokens))
        return tokens


class VideoCoder:
    """The VAE with its own latent statistics, so that what leaves it has about unit variance."""

    def __init__(self, vae: Any) -> None:
        self._vae = vae.eval()
        self._mean = rearrange(vae.latents_mean.float(), "c -> c 1 1 1")
        self._scale = rearrange(vae.latents_std.float(), "c -> c 1 1 1") / vae.config.scaling_factor

    @torch.inference_mode()
    def encode(self, frames: Tensor) -> Tensor:
        """Frames -1 to 1 `[R, 3, frames, height, width]` -> `[R, C, F, H, W]` float32: posterior mean, normalised."""
        frames = frames.to(self._vae.device, self._vae.dtype)
        size = max(1, _CACHED_PIXELS // math.prod(frames.shape[2:])) if frames.device.type == "cpu" else len(frames)
        modes = torch.cat([self._vae.encode(part).latent_dist.mode() for part in torch.split(frames, size)])
        latents: Tensor = (modes.float() - self._mean) / self._scale
        return latents

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """`[R, C, F, H, W]` -> `[R, 3, frames, height, width]` float32, nominally -1 to 1, not clamped."""
        plain = latents.to(self._vae.device).float() * self._scale + self._mean
        timestep = None
        if self._vae.config.timestep_conditioning:
            # the same noise for every row and call: a picture of a plan is the same whenever it is drawn
            noise = torch.from_numpy(draw((0, 0), Stream.VIDEO, 0, 0, tuple(plain.shape[1:]))).to(plain.device)
            plain = torch.lerp(plain, noise, _DECODE_NOISE)
            timestep = torch.full(plain.shape[:1], _DECODE_TIMESTEP, device=plain.device, dtype=self._vae.dtype)
        frames: Tensor = self._vae.decode(plain.to(self._vae.dtype), timestep, return_dict=False)[0]
        return frames.float()


def _load(kind: Any, folder: Path, dtype: torch.dtype) -> Any:
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # a log is no terminal
    try:
        model, info = kind.from_pretrained(
            folder, torch_dtype=dtype, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise BundleError(f"{folder}: expected a {kind.__name__}: {error}") from error
    for fault in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[fault]:  # the libraries would only warn, and leave such weights at random
            names = sorted(map(str, info[fault]))
            raise BundleError(f"{folder}: {len(names)} {fault.replace('_', ' ')}: {', '.join(names[:10])}")
    return model


def _load_tokenizer(folder: Path) -> Any:
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, ImportError) as error:
        raise BundleError(f"{folder}: expected a tokeniser: {error}") from error


def _to_numpy(tensor: Tensor) -> Array:
    array: Array = tensor.float().cpu().numpy()
    return array
