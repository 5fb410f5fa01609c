"""A bundle's VAE and text encoder: pixels to latents, latents to pixels, instructions to embeddings.

The networks are diffusers' `AutoencoderKLLTXVideo` and transformers' `T5EncoderModel`. They load from the bundle's
folder, never from the internet. This module knows nothing of plans.
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
from wavserve.core.spec import PolicySpec
from wavserve.core.types import Array

Pixels = NDArray[np.uint8]

# the values of diffusers' LTX pipelines: a decoder conditioned on a timestep expects slightly noisy latents
_DECODE_TIMESTEP = 0.03
_DECODE_NOISE = 0.025
_MAX_CPU_PIXELS = 1 << 18
"""Maximum pixels per VAE call on a CPU. More do not fit the cache, and the process does not release their memory."""


class Encoder:
    """A bundle's encoders on one device. Rows do not influence each other."""

    def __init__(
        self, folder: Path, device: str = "cpu", dtype: torch.dtype = torch.float32, text_device: str | None = None
    ) -> None:
        """Loads the networks of the bundle in `folder`.

        The text encoder is large and runs once per instruction, so it may run on another device, `text_device` (None:
        `device`). Raises BundleError when the folder is not a bundle or a part does not load.
        """
        # by default torch rounds float32 convolutions to TF32 on a GPU
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
        spec = bundle.load(folder).spec
        self._video = VideoCoder(_load(AutoencoderKLLTXVideo, folder / bundle.VAE, dtype).to(device))
        self._text = TextCoder(folder, spec, text_device or device, dtype)

    def encode_images(self, pixels: Pixels) -> Array:
        """RGB `[B, V, height, width, 3]` -> normalised latents `[B, V, C, H, W]`. Each frame is encoded alone."""
        rows = rearrange(torch.from_numpy(pixels), "b v h w c -> (b v) c 1 h w").float() / 127.5 - 1
        latents = rearrange(self._video.encode(rows), "(b v) c 1 h w -> b v c h w", v=pixels.shape[1])
        return _to_numpy(latents)

    def decode_video(self, latents: Array) -> Pixels:
        """Normalised latents `[B, V, C, F, H, W]` -> RGB `[B, V, (F - 1) temporal_ratio + 1, height, width, 3]`."""
        rows = rearrange(torch.from_numpy(latents), "b v c f h w -> (b v) c f h w")
        frames = rearrange(self._video.decode(rows), "(b v) c f h w -> b v f h w c", v=latents.shape[1])
        pixels: Pixels = ((frames + 1) * 127.5).round_().clamp_(0, 255).to(torch.uint8).cpu().numpy()
        return pixels

    def encode_text(self, texts: Sequence[bytes]) -> list[Array]:
        """See `TextCoder.encode`."""
        return self._text.encode(texts)


class TextCoder:
    """The text encoder and the tokeniser in a bundle's folder. The spec says how prompts are padded."""

    def __init__(self, folder: Path, spec: PolicySpec, device: str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        """Raises BundleError when a part does not load."""
        self._spec = spec
        self._text = _load(T5EncoderModel, folder / bundle.TEXT_ENCODER, dtype).to(device).eval()
        self._tokenizer = _load_tokenizer(folder / bundle.TOKENIZER)

    @torch.inference_mode()
    def encode(self, texts: Sequence[bytes]) -> list[Array]:
        """UTF-8 instructions -> one embedding `[P, C]` each. P is the instruction's own length, without padding.

        Raises InvalidRequest naming `instruction` when a text is not UTF-8 or has more than `max_prompt_tokens` tokens.
        """
        tokens = [self._tokenize(text) for text in texts]
        longest = self._spec.max_prompt_tokens if self._spec.pad_prompt else max(map(len, tokens))
        ids = torch.full((len(tokens), longest), self._tokenizer.pad_token_id, dtype=torch.int64)
        # `pad_prompt`: the released code lets the text encoder attend to padding, and its weights expect that
        mask = torch.full(ids.shape, int(self._spec.pad_prompt), dtype=torch.int64)
        for row, prompt in enumerate(tokens):
            ids[row, : len(prompt)] = torch.tensor(prompt)
            mask[row, : len(prompt)] = 1
        device = self._text.device
        states = self._text(input_ids=ids.to(device), attention_mask=mask.to(device)).last_hidden_state
        return [_to_numpy(state[: len(prompt)]) for state, prompt in zip(states, tokens, strict=True)]

    def _tokenize(self, text: bytes) -> list[int]:
        try:
            tokens: list[int] = self._tokenizer(text.decode()).input_ids
        except UnicodeDecodeError as error:
            raise InvalidRequest("instruction", "UTF-8 text", str(error)) from error
        if len(tokens) > self._spec.max_prompt_tokens:
            raise InvalidRequest("instruction", f"at most {self._spec.max_prompt_tokens} tokens", len(tokens))
        return tokens


class VideoCoder:
    """The VAE with its latent statistics. Latents are normalised, so their variance is about one."""

    def __init__(self, vae: Any) -> None:
        self._vae = vae.eval()
        self._mean = rearrange(vae.latents_mean.float(), "c -> c 1 1 1")
        self._scale = rearrange(vae.latents_std.float(), "c -> c 1 1 1") / vae.config.scaling_factor

    @torch.inference_mode()
    def encode(self, frames: Tensor) -> Tensor:
        """Frames in -1..1 `[R, 3, frames, height, width]` -> normalised posterior mean `[R, C, F, H, W]` float32."""
        frames = frames.to(self._vae.device, self._vae.dtype)
        size = max(1, _MAX_CPU_PIXELS // math.prod(frames.shape[2:])) if frames.device.type == "cpu" else len(frames)
        modes = torch.cat([self._vae.encode(batch).latent_dist.mode() for batch in torch.split(frames, size)])
        latents: Tensor = (modes.float() - self._mean) / self._scale
        return latents

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """Normalised latents `[R, C, F, H, W]` -> `[R, 3, frames, height, width]` float32, about -1..1, not clamped."""
        raw = latents.to(self._vae.device).float() * self._scale + self._mean
        timestep = None
        if self._vae.config.timestep_conditioning:
            # every row and call gets the same noise, so that the same latents always give the same frames
            noise = torch.from_numpy(draw((0, 0), Stream.VIDEO, 0, 0, tuple(raw.shape[1:]))).to(raw.device)
            raw = torch.lerp(raw, noise, _DECODE_NOISE)
            timestep = torch.full(raw.shape[:1], _DECODE_TIMESTEP, device=raw.device, dtype=self._vae.dtype)
        frames: Tensor = self._vae.decode(raw.to(self._vae.dtype), timestep, return_dict=False)[0]
        return frames.float()


def _load(model_class: Any, folder: Path, dtype: torch.dtype) -> Any:
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # the output is a log, not a terminal
    try:
        model, info = model_class.from_pretrained(
            folder, torch_dtype=dtype, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise BundleError(f"{folder}: expected a {model_class.__name__}: {error}") from error
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[problem]:  # the libraries only warn and leave such weights random
            names = sorted(map(str, info[problem]))
            raise BundleError(f"{folder}: {len(names)} {problem.replace('_', ' ')}: {', '.join(names[:10])}")
    return model


def _load_tokenizer(folder: Path) -> Any:
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, ImportError) as error:
        raise BundleError(f"{folder}: expected a tokeniser: {error}") from error


def _to_numpy(tensor: Tensor) -> Array:
    array: Array = tensor.float().cpu().numpy()
    return array
