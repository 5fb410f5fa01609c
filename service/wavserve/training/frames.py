"""Single frames through the video autoencoder by two-dimensional convolutions.

Before and after a lone frame, the autoencoder repeats it. A convolution over time and space then equals one over space
whose kernel is the sum over time, at a third of the cost. The autoencoder's own forward is the oracle.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


def encode_frames(vae: Any, frames: Tensor) -> Tensor:
    """Frames `[R, 3, height, width]` in -1..1 -> the posterior's mean `[R, C, H, W]`, not normalised."""
    encoder = vae.encoder
    x = rearrange(frames, "r c (h p) (w q) -> r (c q p) h w", p=encoder.patch_size, q=encoder.patch_size)
    x = _convolve(encoder.conv_in, x.contiguous(memory_format=torch.channels_last))
    for block in encoder.down_blocks:
        x = _through(block.resnets, x)
        for downsampler in block.downsamplers or ():
            x = _convolve(downsampler, x)
        x = x if block.conv_out is None else _residual(block.conv_out, x)
    x = _through(encoder.mid_block.resnets, x)
    return _convolve(encoder.conv_out, F.silu(_normalised(x)))[:, :-1]  # the last channel is the log variance


def decode_frames(vae: Any, latents: Tensor) -> Tensor:
    """Latents `[R, C, H, W]`, not normalised -> frames `[R, 3, height, width]`, about -1..1."""
    decoder = vae.decoder
    x = _convolve(decoder.conv_in, latents.contiguous(memory_format=torch.channels_last))
    x = _through(decoder.mid_block.resnets, x)
    for block in decoder.up_blocks:
        x = x if block.conv_in is None else _residual(block.conv_in, x)
        for upsampler in block.upsamplers or ():
            x = _upsampled(upsampler, x)
        x = _through(block.resnets, x)
    x = _convolve(decoder.conv_out, F.silu(_normalised(x)))
    return rearrange(x, "r (c q p) h w -> r c (h p) (w q)", p=decoder.patch_size, q=decoder.patch_size)


def _convolve(layer: Any, x: Tensor) -> Tensor:
    """A causal or a centred convolution."""
    conv = layer.conv
    return F.conv2d(x, conv.weight.sum(2), conv.bias, stride=conv.stride[1:], padding=conv.padding[1:])


def _residual(block: Any, x: Tensor) -> Tensor:
    branch = _convolve(block.conv1, F.silu(_normalised(x)))
    branch = _convolve(block.conv2, F.silu(_normalised(branch)))
    if block.norm3 is not None:
        x = block.norm3(x.movedim(1, -1)).movedim(-1, 1)
    return branch + (x if block.conv_shortcut is None else _convolve(block.conv_shortcut, x))


def _through(blocks: Any, x: Tensor) -> Tensor:
    for block in blocks:
        x = _residual(block, x)
    return x


def _upsampled(layer: Any, x: Tensor) -> Tensor:
    """Twice the height and width. Of the two frames in time that the layer makes, it drops the first one."""
    conv = layer.conv.conv
    kept = rearrange(torch.arange(conv.weight.shape[0]), "(c t s) -> t (c s)", t=2, s=4)[1]
    x = F.conv2d(x, conv.weight[kept].sum(2), conv.bias[kept], padding=conv.padding[1:])
    x = rearrange(x, "r (c p q) h w -> r c (h p) (w q)", p=2, q=2)
    return x.contiguous(memory_format=torch.channels_last)


def _normalised(x: Tensor) -> Tensor:
    """Root mean square over channels, as the autoencoder's norms without weights."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)
