"""What the two fast paths share: keys and values computed once, rotation in place, attention without masks.

Called by `fast_video` and `fast_expert`. Reads the plain modules' weights and copies none. "In place" is only ever done
on tensors that the caller has just made.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from wavserve.models.layers import Attention


@dataclass(frozen=True, slots=True)
class KeyValue:
    """Keys (normalised) and values `[R, heads, L, head dim]` of what an attention reads."""

    key: Tensor
    value: Tensor


def heads(x: Tensor, num_heads: int) -> Tensor:
    """`[R, L, (heads d)]` seen as `[R, heads, L, d]`."""
    rows, length, width = x.shape
    return x.view(rows, length, num_heads, width // num_heads).transpose(1, 2)


def query(layer: Attention, x: Tensor) -> Tensor:
    """Normalised queries of `x [..., width]`, not yet turned or split."""
    return layer.norm_q(layer.to_q(x))  # type: ignore[no-any-return]


def key_value(layer: Attention, tokens: Tensor) -> KeyValue:
    """Keys and values of context `tokens [R, L, C]`; they depend on nothing else, so once is enough."""
    key, value = layer.norm_k(layer.to_k(tokens)), layer.to_v(tokens)
    return KeyValue(heads(key, layer.num_heads), heads(value, layer.num_heads))


def attend(layer: Attention, q: Tensor, context: KeyValue) -> Tensor:
    """Output projection of queries `q [R, L, width]` on a context of the same `R` rows: `[R, L, width]`."""
    read = F.scaled_dot_product_attention(heads(q, layer.num_heads), context.key, context.value)
    return layer.to_out[0](read.transpose(1, 2).reshape(q.shape))  # type: ignore[no-any-return]


def turn_(x: Tensor, table: Tensor) -> Tensor:
    """`x [..., L, width]` turned by the complex `table [L, width / 2]`; in place where `x` is float32."""
    pairs = x.float().view(*x.shape[:-1], -1, 2)
    torch.view_as_complex(pairs).mul_(table)
    return pairs.view(x.shape).to(x.dtype)
