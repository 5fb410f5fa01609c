"""A backend of a few numpy lines: the contract and the arena rules of the real ones, without a model.

It serves tests of everything above the seam. Its numbers depend on every input that matters (noise, features, memory,
state), so a mixed-up sample or group changes them. `before` is awaited ahead of each call and may sleep (latency) or
raise (faults).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wavserve.core import noise
from wavserve.core.errors import ArenaFull, InvalidRequest
from wavserve.core.noise import Stream
from wavserve.core.spec import PolicySpec
from wavserve.core.types import Tensors
from wavserve.core.verbs import GroupStatus
from wavserve.models.arena.book import ArenaBook, ArenaRole

MAX_TEXTS = 4


async def _no_delay(verb: str) -> None:
    pass


class FakeBackend:
    """Answers with simple sums. `calls` lists (verb, groups, rows) of every call."""

    def __init__(self, spec: PolicySpec, book: ArenaBook, before: Callable[[str], Awaitable[None]] = _no_delay) -> None:
        self._spec = spec
        self.book = book
        self.before = before
        self.calls: list[tuple[str, int, int]] = []
        self._slot_features: dict[int, float] = {}
        self._slot_values: dict[int, float] = {}
        self._texts: OrderedDict[bytes, float] = OrderedDict()

    async def run(self, verb: str, inputs: Tensors, deadline: float = math.inf) -> Tensors:
        await self.before(verb)
        groups = len(next(iter(inputs.values())))
        names = inputs.get("noise_name")
        self.calls.append((verb, groups, names.shape[1] if names is not None and names.ndim > 2 else 1))
        outputs: Tensors = getattr(self, f"_{verb}")(inputs)
        return outputs

    async def close(self) -> None:
        pass

    def _encode_images(self, inputs: Tensors) -> Tensors:
        latent, channels = self._spec.latent, self._spec.model.video.in_channels
        means = inputs["pixels"].mean(axis=(2, 3, 4), dtype=np.float64) / 255
        shape = (*means.shape, channels, latent.height, latent.width)
        return {"latents": np.broadcast_to(means[..., None, None, None], shape).astype(np.float32)}

    def _encode_text(self, inputs: Tensors) -> Tensors:
        if (count := inputs["text"].shape[1]) > self._spec.max_prompt_tokens:
            raise InvalidRequest("instruction", f"at most {self._spec.max_prompt_tokens} tokens", count)
        width = self._spec.model.video.caption_channels
        return {"embedding": np.repeat(inputs["text"][..., None] / np.float32(255), width, axis=-1)}

    def _decode_video(self, inputs: Tensors) -> Tensors:
        camera, frames = self._spec.cameras[0], (self._spec.latent.num_future_frames - 1) * 8 + 1
        grey = (inputs["latents"].mean(axis=(2, 3, 4, 5)) * 255).clip(0, 255).astype(np.uint8)
        shape = (*grey.shape, frames, camera.height, camera.width, 3)
        return {"frames": np.broadcast_to(grey[..., None, None, None, None], shape)}

    def _imagine(self, inputs: Tensors) -> Tensors:
        samples = self._video_noise(inputs)
        groups, num_samples = samples.shape[:2]
        status = np.zeros(groups, np.int32)
        handles = np.zeros((groups, num_samples, 2), np.int64)
        for g in range(groups):
            text = self._text(inputs, g)
            if text is None:
                status[g] = GroupStatus.TEXT_MISS
                continue
            try:
                handles[g] = self.book.allocate(num_samples)
            except ArenaFull:
                status[g] = GroupStatus.ARENA_FULL
                continue
            for (slot, _), sample in zip(handles[g], samples[g], strict=True):
                self._slot_features[int(slot)] = float(sample.mean() * 10 + inputs["memory"][g].mean() + text)
            self.book.publish(handles[g])
        return {"handles": handles, "status": status}

    def _denoise(self, inputs: Tensors) -> Tensors:
        missed = [self._text(inputs, g) is None for g in range(len(inputs["memory"]))]
        status = np.where(missed, GroupStatus.TEXT_MISS, GroupStatus.OK).astype(np.int32)
        return {"latents": self._video_noise(inputs), "status": status}

    def _score(self, inputs: Tensors) -> Tensors:
        shape = (self._spec.num_value_tokens, self._spec.model.value.in_channels)
        draws = noise.call_noise(inputs, Stream.VALUE, shape)
        status = self._status(inputs["handles"])
        values = draws[..., -1] + self._read(self._slot_features, inputs["handles"])[..., None, None]
        if inputs["release"][0, 0]:
            self.book.release(inputs["handles"], ArenaRole.VALUE)
        return {"values": values.astype(np.float32), "status": status}

    def _value_features(self, inputs: Tensors) -> Tensors:
        shape = (self._spec.num_value_tokens, self._spec.model.value.in_channels)
        draws = noise.call_noise(inputs, Stream.VALUE, shape)
        for (slot, _), draw in zip(inputs["handles"].reshape(-1, 2), draws, strict=True):
            self._slot_values[int(slot)] = float(draw.mean())
        return {"status": self._status(inputs["handles"])}

    def _release(self, inputs: Tensors) -> Tensors:
        self.book.release(inputs["handles"], ArenaRole.VIDEO)
        return {"status": np.zeros(len(inputs["handles"]), np.int32)}

    def _decode(self, inputs: Tensors) -> Tensors:
        shape = (self._spec.chunk, self._spec.model.action.in_channels)
        draws = noise.call_noise(inputs, Stream.ACTION, shape)
        handles = inputs["handles"]
        status = self._status(handles)
        features = self._read(self._slot_features, handles) + self._read(self._slot_values, handles)
        actions = np.tanh(draws * 0.1 + inputs["history"][:, None] + features[:, :1, None] * 0.1)
        if "left_over" in inputs:
            _pull(actions, inputs)
        self.book.release(handles, ArenaRole.ACTION)
        return {"actions": actions.astype(np.float32), "status": status}

    def _video_noise(self, inputs: Tensors) -> NDArray[np.float32]:
        spec = self._spec
        latent = spec.latent
        frame = (latent.num_future_frames, latent.height, latent.width)
        return noise.call_noise(inputs, Stream.VIDEO, (spec.num_views, spec.model.video.in_channels, *frame))

    def _text(self, inputs: Tensors, group: int) -> float | None:
        key = inputs["text_key"][group].tobytes()
        if "embedding" in inputs:
            self._texts[key] = float(inputs["embedding"][group].mean())
            if len(self._texts) > MAX_TEXTS:
                self._texts.popitem(last=False)
        return self._texts.get(key)

    def _status(self, handles: NDArray[Any]) -> NDArray[np.int32]:
        stale = [not self.book.current(group) for group in handles]
        return np.where(stale, GroupStatus.STALE_HANDLE, GroupStatus.OK).astype(np.int32)

    def _read(self, table: dict[int, float], handles: NDArray[Any]) -> NDArray[np.float64]:
        return np.array([[table.get(int(slot), 0.0) for slot, _ in group] for group in handles])


def _pull(actions: NDArray[Any], inputs: Tensors) -> None:
    """Moves actions to the left-over where it has weight, all the way where the weight is 1."""
    left_over = inputs["left_over"]
    steps = np.arange(left_over.shape[1])
    weights = inputs["weights"] if "weights" in inputs else (steps < inputs["num_frozen"]).astype(np.float32)
    own = actions[..., : left_over.shape[2]]
    own += (left_over - own) * weights[..., None]
