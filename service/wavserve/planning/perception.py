"""Camera frames to latents, instructions to embeddings, and imagined latents back to frames.

It asks the encoder through the batcher, so frames of different robots are encoded in one call.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from wavserve.core.spec import PolicySpec
from wavserve.core.types import Array, TextEmbedding
from wavserve.scheduling.batcher import Batcher
from wavserve.scheduling.groups import SampleGroup
from wavserve.scheduling.ledger import Ticket

OnLookup = Callable[[Literal["process", "redis"], bool], None]
"""Told of each lookup of an instruction's embedding: where, and whether it was there."""


class SharedTexts(Protocol):
    """Embeddings that gateways share. It is a cache: no call raises, and none takes long."""

    async def find(self, instruction: str) -> TextEmbedding | None:
        """None: the instruction must be encoded."""
        ...

    def keep(self, embedding: TextEmbedding) -> None:
        """Returns at once."""
        ...


class Perception:
    """Encodes for one policy. Keeps the embeddings of the `max_texts` most recent instructions.

    `shared`: where gateways share them; None: nowhere.
    """

    def __init__(self, spec: PolicySpec, batcher: Batcher, max_texts: int) -> None:
        self._cameras = tuple(camera.name for camera in spec.cameras)
        self._batcher = batcher
        self._max_texts = max_texts
        self._texts: OrderedDict[str, TextEmbedding] = OrderedDict()
        self.shared: SharedTexts | None = None
        self.on_lookup: OnLookup = lambda where, found: None

    async def encode_images(self, images: Mapping[str, NDArray[np.uint8]], ticket: Ticket) -> Array:
        """Normalised latents `[V, C, H, W]` of one frame per camera, each encoded alone."""
        pixels = np.stack([images[camera] for camera in self._cameras])
        outputs = await self._batcher.run(SampleGroup("encode_images", {"pixels": pixels}, ticket=ticket))
        latents: Array = outputs["latents"]
        return latents

    async def encode_text(self, instruction: str, ticket: Ticket) -> TextEmbedding:
        """The instruction's embedding; it is encoded once and cached.

        Raises InvalidRequest when it has more tokens than the policy's prompt length.
        """
        known = self._texts.get(instruction)
        self.on_lookup("process", known is not None)
        if known is not None:
            self._texts.move_to_end(instruction)
            return known
        if (shared := self.shared) is None:
            return await self.encode_anew(instruction, ticket)
        found = await shared.find(instruction)
        self.on_lookup("redis", found is not None)
        if found is not None:
            return self._remembered(instruction, found)
        embedding = await self.encode_anew(instruction, ticket)
        shared.keep(embedding)
        return embedding

    async def encode_anew(self, instruction: str, ticket: Ticket) -> TextEmbedding:
        """The instruction's embedding by the encoder, for warm-up too, and only in this process. Raises as
        `encode_text`."""
        text = np.frombuffer(instruction.encode(), np.uint8)
        outputs = await self._batcher.run(SampleGroup("encode_text", {"text": text}, ticket=ticket))
        return self._remembered(instruction, TextEmbedding(TextEmbedding.key_of(instruction), outputs["embedding"]))

    def _remembered(self, instruction: str, embedding: TextEmbedding) -> TextEmbedding:
        self._texts[instruction] = embedding
        self._texts.move_to_end(instruction)
        if len(self._texts) > self._max_texts:
            self._texts.popitem(last=False)
        return embedding

    async def decode_video(self, latents: Array, ticket: Ticket) -> dict[str, NDArray[np.uint8]]:
        """Camera frames `[frames, height, width, 3]` of imagined latents `[V, C, F, H, W]`."""
        outputs = await self._batcher.run(SampleGroup("decode_video", {"latents": latents}, ticket=ticket))
        return dict(zip(self._cameras, outputs["frames"], strict=True))
