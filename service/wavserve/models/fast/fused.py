"""One transformer block as one function on tensors, the same for all three models; the fast paths run it.

Written for two readers: torch as it is, which likes few operations and results in place, and torch's compiler, which
fuses what lies between the matrix products. Where the two want different formulas (rotation, GELU) both are here.
Reads the plain modules' weights and copies none; `layers.Block` is the oracle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from wavserve.models.networks.layers import Attention, Block, FeedForward, gelu


class KeyValue(NamedTuple):
    """Keys (normalised) and values `[R, heads, L, head dim]` of what an attention reads. A tuple: the compiler sees
    through it."""

    key: Tensor
    value: Tensor


class Reach(NamedTuple):
    """What self-attention sees and what a block updates. `joint`: a token sees its whole row, else only its entry of
    axis 1 (its view). `first`: entries of the third axis from the end (frames) that are read but not updated."""

    joint: bool = True
    first: int = 0


EVERYTHING = Reach()


class BlockStep(Protocol):
    """`block`, or the same compiled."""

    def __call__(
        self,
        layer: Block,
        x: Tensor,
        temb: Tensor,
        rotary: Tensor,
        contexts: Sequence[KeyValue],
        reach: Reach = EVERYTHING,
    ) -> None: ...


def block(
    layer: Block,
    x: Tensor,
    temb: Tensor,
    rotary: Tensor,
    contexts: Sequence[KeyValue],
    reach: Reach = EVERYTHING,
) -> None:
    """One block on `x [B, ..., D]`, in place.

    `temb [..., 6, D]` and `rotary [..., D / 2, 2]` (cosines, sines) broadcast against `x`.
    Cross-attentions read contexts of R rows, each by B / R rows of `x`; they may be fewer than the block has.
    """
    joint, first = reach
    shift1, scale1, gate1, shift2, scale2, gate2 = (layer.scale_shift_table + temb).unbind(-2)
    attended = _self_attention(layer.attn1, _modulated(x, shift1, scale1, layer.eps), rotary, joint, first)
    kept = _from(x, first)
    kept.addcmul_(attended.view(kept.shape), _from(gate1, first))
    layers = [each for each in (layer.attn2, layer.attn3) if each is not None]
    # both read the same x; zip ends early where the action expert is run without value features
    updates = [_grouped(each, kept, context) for each, context in zip(layers, contexts, strict=False)]
    for update in updates:
        kept += update
    n = _modulated(kept, _from(shift2, first), _from(scale2, first), layer.eps)
    kept.addcmul_(_feed_forward(layer.ff, n), _from(gate2, first))


def key_value(layer: Attention, tokens: Tensor) -> KeyValue:
    """Keys and values of context `tokens [R, L, C]`; they depend on nothing else, so once is enough."""
    key, value = layer.norm_k(layer.to_k(tokens)), layer.to_v(tokens)
    return KeyValue(_heads(key, layer.num_heads), _heads(value, layer.num_heads))


def _heads(x: Tensor, num_heads: int) -> Tensor:
    """`[R, L, (heads d)]` seen as `[R, heads, L, d]`."""
    rows, length, width = x.shape
    return x.view(rows, length, num_heads, width // num_heads).transpose(1, 2)


def _from(x: Tensor, first: int) -> Tensor:
    return x[..., first:, :, :] if first else x


def _modulated(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    n = F.rms_norm(x, x.shape[-1:], eps=eps)
    return torch.addcmul(shift, n, 1 + scale, out=n)


def _self_attention(layer: Attention, n: Tensor, rotary: Tensor, joint: bool, first: int) -> Tensor:
    """Output projection `[rows, L, D]` of attention among `n [B, ..., D]`, of the tokens from `first` on."""
    q = apply_rotary(layer.norm_q(layer.to_q(_from(n, first))), rotary[first:])
    k = apply_rotary(layer.norm_k(layer.to_k(n)), rotary)
    q, k, v = (_rows(part, joint) for part in (q, k, layer.to_v(n)))
    return _attend(layer, q, KeyValue(_heads(k, layer.num_heads), _heads(v, layer.num_heads)))


def _rows(x: Tensor, joint: bool) -> Tensor:
    """`x [B, ..., D]` as `[rows, L, D]`, a row what attends to itself."""
    return x.flatten(1, -2) if joint else x.flatten(0, 1).flatten(1, -2)


def _grouped(layer: Attention, x: Tensor, context: KeyValue) -> Tensor:
    """Cross-attention of `x [B, ..., D]` on a context of R rows: the rows of one as a single query."""
    q = layer.norm_q(layer.to_q(x))
    return _attend(layer, q.view(len(context.key), -1, x.shape[-1]), context).view(x.shape)


def _attend(layer: Attention, q: Tensor, context: KeyValue) -> Tensor:
    """Output projection of queries `q [R, L, width]` on a context of the same `R` rows: `[R, L, width]`."""
    read = _attention(_heads(q, layer.num_heads), *context)
    return layer.to_out[0](read.transpose(1, 2).reshape(q.shape))  # type: ignore[no-any-return]


def _attention(q: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention of `q [R, heads, L, head dim]`.

    On a CPU torch's own multiplies bfloat16 no faster than float32 (docs/benchmarks); there it is two products.
    """
    if q.device.type != "cpu" or q.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(q, key, value)
    scaled = q * q.shape[-1] ** -0.5  # not the scores: the compiler would know torch's own attention, and put it here
    read: Tensor = (scaled @ key.transpose(-1, -2)).softmax(-1) @ value
    return read


def _feed_forward(layer: FeedForward, x: Tensor) -> Tensor:
    projection, _, out = layer.net
    return out(_gelu(projection.proj(x)))  # type: ignore[no-any-return, operator]


def _gelu(x: Tensor) -> Tensor:
    """GELU in its tanh form, for 1 + tanh(a) = 2 sigmoid(2 a): compiled, an exponential is cheaper than a tangent."""
    if not torch.compiler.is_compiling():
        return gelu(x)
    return x * torch.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))


def apply_rotary(x: Tensor, rotary: Tensor) -> Tensor:
    """`x [..., width]` turned pair by pair, in float32, by `rotary [..., width / 2, 2]`. May write `x`."""
    pairs = x.float().view(*x.shape[:-1], -1, 2)
    if not torch.compiler.is_compiling():
        torch.view_as_complex(pairs).mul_(torch.view_as_complex(rotary))
        return pairs.view(x.shape).to(x.dtype)
    first, second, cos, sin = pairs[..., 0], pairs[..., 1], rotary[..., 0], rotary[..., 1]  # complex is not fused
    rotated_pairs = torch.stack((first * cos - second * sin, first * sin + second * cos), -1)
    return rotated_pairs.flatten(-2).to(x.dtype)
