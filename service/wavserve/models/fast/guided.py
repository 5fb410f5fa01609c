"""The action expert's fast path for guidance: the same velocity, which autograd can follow.

It shares weights with `FastAction` and no other tensor, because those are made in inference mode. Its blocks change
nothing in place and are neither compiled nor captured in CUDA graphs. Keys and values of the features are computed once
per plan, as there. Tested on CPUs only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from wavserve.models.fast.expert import Read, modulation
from wavserve.models.fast.fused import KeyValue, differentiable_block, key_value
from wavserve.models.networks import flow
from wavserve.models.networks.expert import ExpertDiT
from wavserve.models.networks.guidance import Guidance, guided
from wavserve.models.networks.layers import Block
from wavserve.models.networks.maths import token_rotary


class GuidedAction:
    """The action expert under guidance. It holds no weights of its own. `length`: the number T of a sample's tokens.

    Its oracle is `networks.expert.action_dit` under `networks.guidance`.
    """

    def __init__(self, dit: ExpertDiT, length: int) -> None:
        self._dit, self._length = dit, length
        self._blocks: list[Block] = list(dit.blocks)  # type: ignore[arg-type]
        self._dtype = dit.scale_shift_table.dtype
        table = token_rotary(length + 1, dit.rope_base, dit.scale_shift_table.shape[1], dit.rope_theta)
        self._rotary = table.interleaved().to(dit.scale_shift_table.device)
        self._is_clean = torch.tensor([True] + [False] * length)  # the history token

    def integrate(
        self,
        noise: Tensor,
        history: Tensor,
        reads: tuple[Read, Read],
        num_steps: int,
        guidance: Guidance,
        on_step: flow.OnStep | None = None,
    ) -> Tensor:
        """Actions `[R, T, C]`, integrated from `noise [R, T, C]` under guidance.

        `history [R, C]` is the first token. `reads` are the video features `[R, V*L, D]` and the value features
        `[R, Tvalue, Avalue]` after each block.
        """
        with torch.inference_mode(False), torch.no_grad():
            contexts = [self._keys_and_values(layer, reads) for layer in range(len(self._blocks))]
            first = self._dit.proj_in(history.to(self._dtype).unsqueeze(1))

            def velocity(x: Tensor, sigma: float) -> Tensor:
                return self._velocity(x, sigma, first, contexts)

            return flow.integrate(guided(velocity, guidance), noise, num_steps, on_step)

    def _keys_and_values(self, layer: int, reads: tuple[Read, Read]) -> list[KeyValue]:
        block = self._blocks[layer]
        attentions = [each for each in (block.attn2, block.attn3) if each is not None]
        return [
            key_value(attention, read(layer).to(self._dtype)) for attention, read in zip(attentions, reads, strict=True)
        ]

    def _velocity(self, samples: Tensor, sigma: float, first: Tensor, contexts: Sequence[Sequence[KeyValue]]) -> Tensor:
        temb, embedded = modulation(self._dit, sigma, self._is_clean)
        x = torch.cat([first, self._dit.proj_in(samples.to(self._dtype))], dim=1)
        for block, context in zip(self._blocks, contexts, strict=True):
            x = differentiable_block(block, x, temb, self._rotary, context)
        return self._dit.head(x[:, -self._length :], embedded)
