"""One transformer block as one function on tensors, the same for all three models.

The function suits eager torch, because it has few operations and writes in place. It also suits `torch.compile`, which
fuses the operations between matrix products. Where the two need different formulas (rotation, GELU), both are here. It
reads the weights of the plain modules without copying them; `layers.Block` is the oracle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from wavserve.models.networks.layers import Attention, Block, FeedForward, gelu


class KeyValue(NamedTuple):
    """An attention's keys (RMS-normalised) and values, both `[R, heads, L, head dim]`.

    It is a tuple, because the compiler traces through tuples.
    """

    key: Tensor
    value: Tensor


class AttentionScope(NamedTuple):
    """The tokens that self-attention reads and that a block updates, for `x [B, V, F, L, D]`."""

    joint: bool = True
    """a token attends to its whole row; else only to its view (axis 1)"""
    first_frame: int = 0
    """earlier frames (axis -3) are attended to but not updated"""


ALL_TOKENS = AttentionScope()


class BlockFunction(Protocol):
    """`block`, or its compiled form."""

    def __call__(
        self,
        layer: Block,
        x: Tensor,
        temb: Tensor,
        rotary: Tensor,
        contexts: Sequence[KeyValue],
        scope: AttentionScope = ALL_TOKENS,
    ) -> None: ...


def block(
    layer: Block,
    x: Tensor,
    temb: Tensor,
    rotary: Tensor,
    contexts: Sequence[KeyValue],
    scope: AttentionScope = ALL_TOKENS,
) -> None:
    """One block on `x [B, ..., D]`, in place.

    `temb [..., 6, D]` and `rotary [..., D / 2, 2]` (cosines, sines) broadcast against `x`. A context has R rows, and
    B / R rows of `x` attend to each. There may be fewer `contexts` than cross-attentions in the block.
    """
    joint, first = scope
    shift1, scale1, gate1, shift2, scale2, gate2 = (layer.scale_shift_table + temb).unbind(-2)
    attended = _self_attention(layer.attn1, _modulated(x, shift1, scale1, layer.eps), rotary, joint, first)
    updated = _from(x, first)
    updated.addcmul_(attended.view(updated.shape), _from(gate1, first))
    layers = [each for each in (layer.attn2, layer.attn3) if each is not None]
    # both cross-attentions read the same x (paper equation 3). Without value features the action expert has one context
    # for two cross-attentions; zip then leaves out the second
    updates = [_cross_attention(each, updated, context) for each, context in zip(layers, contexts, strict=False)]
    for update in updates:
        updated += update
    n = _modulated(updated, _from(shift2, first), _from(scale2, first), layer.eps)
    updated.addcmul_(_feed_forward(layer.ff, n), _from(gate2, first))


def differentiable_block(layer: Block, x: Tensor, temb: Tensor, rotary: Tensor, contexts: Sequence[KeyValue]) -> Tensor:
    """`block` on `x [B, L, D]` with all tokens, out of place: autograd needs every intermediate value unchanged."""
    shift1, scale1, gate1, shift2, scale2, gate2 = (layer.scale_shift_table + temb).unbind(-2)
    n = torch.addcmul(shift1, F.rms_norm(x, x.shape[-1:], eps=layer.eps), 1 + scale1)
    x = torch.addcmul(x, _self_attention(layer.attn1, n, rotary, joint=True, first=0), gate1)
    layers = [each for each in (layer.attn2, layer.attn3) if each is not None]
    for update in [_cross_attention(each, x, context) for each, context in zip(layers, contexts, strict=True)]:
        x = x + update
    n = torch.addcmul(shift2, F.rms_norm(x, x.shape[-1:], eps=layer.eps), 1 + scale2)
    return torch.addcmul(x, _feed_forward(layer.ff, n), gate2)


def key_value(layer: Attention, tokens: Tensor) -> KeyValue:
    """Keys and values of context `tokens [R, L, C]`. They depend on nothing else, so they can be computed once."""
    key, value = layer.norm_k(layer.to_k(tokens)), layer.to_v(tokens)
    return KeyValue(_heads(key, layer.num_heads), _heads(value, layer.num_heads))


def _heads(x: Tensor, num_heads: int) -> Tensor:
    """`[R, L, (heads d)]` -> `[R, heads, L, d]`, a view."""
    rows, length, width = x.shape
    return x.view(rows, length, num_heads, width // num_heads).transpose(1, 2)


def _from(x: Tensor, first: int) -> Tensor:
    """`x [..., F, L, D]` from frame `first` on."""
    return x[..., first:, :, :] if first else x


def _modulated(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    n = F.rms_norm(x, x.shape[-1:], eps=eps)
    return torch.addcmul(shift, n, 1 + scale, out=n)


def _self_attention(layer: Attention, n: Tensor, rotary: Tensor, joint: bool, first: int) -> Tensor:
    """Self-attention of `n [B, ..., D]`, output projection included: `[rows, L, D]`. Queries begin at frame `first`."""
    q = apply_rotary(layer.norm_q(layer.to_q(_from(n, first))), rotary[first:])
    k = apply_rotary(layer.norm_k(layer.to_k(n)), rotary)
    q, k, v = (_rows(part, joint) for part in (q, k, layer.to_v(n)))
    return _attend(layer, q, KeyValue(_heads(k, layer.num_heads), _heads(v, layer.num_heads)))


def _rows(x: Tensor, joint: bool) -> Tensor:
    """`x [B, ..., D]` -> `[rows, L, D]`. The tokens of a row attend to each other."""
    return x.flatten(1, -2) if joint else x.flatten(0, 1).flatten(1, -2)


def _cross_attention(layer: Attention, x: Tensor, context: KeyValue) -> Tensor:
    """Cross-attention of `x [B, ..., D]` on a context of R rows. The B / R rows of one context are a single query."""
    q = layer.norm_q(layer.to_q(x))
    return _attend(layer, q.view(len(context.key), -1, x.shape[-1]), context).view(x.shape)


def _attend(layer: Attention, q: Tensor, context: KeyValue) -> Tensor:
    """Attention of queries `q [R, L, width]` on a context of the same R rows, output projection included."""
    attended = _attention(_heads(q, layer.num_heads), *context)
    return layer.to_out[0](attended.transpose(1, 2).reshape(q.shape))  # type: ignore[no-any-return]


def _attention(q: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention of `q [R, heads, L, head dim]`.

    On a CPU, torch's own attention is no faster in bfloat16 than in float32 (docs/benchmarks), so there bfloat16 uses
    two matrix products.
    """
    if q.device.type != "cpu" or q.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(q, key, value)
    # scaling q, not the scores, keeps the compiler from recognising attention and substituting torch's own
    scaled = q * q.shape[-1] ** -0.5
    attended: Tensor = (scaled @ key.transpose(-1, -2)).softmax(-1) @ value
    return attended


def _feed_forward(layer: FeedForward, x: Tensor) -> Tensor:
    projection, _, out = layer.net
    return out(_gelu(projection.proj(x)))  # type: ignore[no-any-return, operator]


def _gelu(x: Tensor) -> Tensor:
    """GELU in its tanh form. Compiled, it uses 1 + tanh(a) = 2 sigmoid(2 a): an exponential is cheaper than tanh."""
    if not torch.compiler.is_compiling():
        return gelu(x)
    return x * torch.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))


def apply_rotary(x: Tensor, rotary: Tensor) -> Tensor:
    """`x [..., width]` with each channel pair rotated, in float32, by `rotary [..., width / 2, 2]` (cosines, sines).

    May overwrite `x`.
    """
    pairs = x.float().view(*x.shape[:-1], -1, 2)
    if not (torch.compiler.is_compiling() or x.requires_grad):
        torch.view_as_complex(pairs).mul_(torch.view_as_complex(rotary))
        return pairs.view(x.shape).to(x.dtype)
    # the compiler does not fuse complex numbers, and autograd needs `x` unchanged
    first, second, cos, sin = pairs[..., 0], pairs[..., 1], rotary[..., 0], rotary[..., 1]
    rotated = torch.stack((first * cos - second * sin, first * sin + second * cos), -1)
    return rotated.flatten(-2).to(x.dtype)
