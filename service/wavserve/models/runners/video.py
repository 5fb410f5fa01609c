"""The video model's runner: `imagine` fills arena slots with features, `denoise` returns future latents.

The same code runs in-process and in Triton. The runner is the arena's only allocator. It caches the text keys and
values of recent instructions. It draws each noise from the name in its request.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wavserve.core import noise
from wavserve.core.errors import ArenaFull
from wavserve.core.noise import Stream
from wavserve.core.spec import PolicySpec
from wavserve.core.types import Tensors
from wavserve.core.verbs import GroupStatus
from wavserve.models.arena.arena import Arena
from wavserve.models.arena.book import ArenaRole
from wavserve.models.fast.video import FastVideo, TextKV
from wavserve.models.runners.calls import CancelCheck, not_cancelled, rows_of, stop_if
from wavserve.system.lookups import Lookups


class VideoRunner:
    """`imagine`: writes video samples' features into the arena. `denoise`: returns latents. `release`: frees slots."""

    def __init__(self, model: FastVideo, spec: PolicySpec, arena: Arena, max_texts: int) -> None:
        latent = spec.latent
        frame = (spec.model.video.in_channels, latent.num_future_frames, latent.height, latent.width)
        self._noise_shape = (spec.num_views, *frame)
        self._model = model
        self._arena = arena
        self._texts = _TextCache(model, max_texts)
        self.text_lookups = self._texts.lookups

    def run(self, verb: str, inputs: Tensors, cancelled: CancelCheck = not_cancelled) -> Tensors:
        stop_if(cancelled)
        if verb == "release":
            self._arena.book.release(inputs["handles"], ArenaRole.VIDEO)
            return {"status": np.zeros(len(inputs["handles"]), np.int32)}
        return self._imagine(inputs, cancelled) if verb == "imagine" else self._denoise(inputs, cancelled)

    def _imagine(self, inputs: Tensors, cancelled: CancelCheck) -> Tensors:
        groups, num_samples = inputs["noise_name"].shape[:2]
        texts, status = self._look_up(inputs)
        handles = np.zeros((groups, num_samples, 2), np.int64)
        for g in np.flatnonzero(status == GroupStatus.OK):
            try:
                handles[g] = self._arena.book.allocate(num_samples)
            except ArenaFull:
                status[g] = GroupStatus.ARENA_FULL
        live = np.flatnonzero(status == GroupStatus.OK)
        if len(live):
            self._fill(rows_of(inputs, live), [texts[g] for g in live.tolist()], handles[live], cancelled)
        return {"handles": handles, "status": status}

    def _fill(
        self, inputs: Tensors, texts: Sequence[TextKV], handles: NDArray[np.int64], cancelled: CancelCheck
    ) -> None:
        """Writes the features of all samples or of none. A cancelled writer frees its slots itself."""
        owned = handles.reshape(-1, 2)

        def sink(layer: int, features: Tensor) -> None:
            stop_if(cancelled)
            self._arena.write_video(layer, owned[:, 0], features)

        try:
            steps = int(inputs["video_steps"][0, 0])
            self._model.imagine(*self._latents(inputs), texts, steps, sink, lambda _: stop_if(cancelled))
            self._arena.synchronize()
            stop_if(cancelled)
        except BaseException:
            self._arena.book.abandon(owned)
            raise
        self._arena.book.publish(owned)

    def _denoise(self, inputs: Tensors, cancelled: CancelCheck) -> Tensors:
        texts, status = self._look_up(inputs)
        latents = np.zeros((*inputs["noise_name"].shape[:2], *self._noise_shape), np.float32)
        live = np.flatnonzero(status == GroupStatus.OK)
        if len(live):
            own, own_texts = rows_of(inputs, live), [texts[g] for g in live.tolist()]
            steps = int(own["flow_steps"][0, 0])
            denoised = self._model.denoise(*self._latents(own), own_texts, steps, lambda _: stop_if(cancelled))
            latents[live] = denoised.float().cpu().numpy()
        return {"latents": latents, "status": status}

    def _look_up(self, inputs: Tensors) -> tuple[dict[int, TextKV], NDArray[np.int32]]:
        """Keys and values of each group whose text is cached or in the request, and every group's status so far."""
        texts = {g: self._texts.get(inputs, g) for g in range(len(inputs["text_key"]))}
        status = np.array(
            [GroupStatus.TEXT_MISS if text is None else GroupStatus.OK for text in texts.values()], np.int32
        )
        return {g: text for g, text in texts.items() if text is not None}, status

    def _latents(self, inputs: Tensors) -> tuple[Tensor, Tensor]:
        """Memory latents `[G, V, C, Fmem, H, W]` and the generated frames' noise `[G, N, V, C, F, H, W]`."""
        video = noise.call_noise(inputs, Stream.VIDEO, self._noise_shape)
        return torch.from_numpy(inputs["memory"]).to(self._arena.device), torch.from_numpy(video).to(self._arena.device)


class _TextCache:
    """Keys and values of the `max_texts` most recently used instructions. Several threads may use it."""

    def __init__(self, model: FastVideo, max_texts: int) -> None:
        self._model = model
        self._max_texts = max_texts
        self._held: OrderedDict[bytes, TextKV] = OrderedDict()
        self._lock = threading.Lock()
        self.lookups = Lookups()

    def get(self, inputs: Tensors, group: int) -> TextKV | None:
        with self._lock:
            return self._get(inputs, group)

    def _get(self, inputs: Tensors, group: int) -> TextKV | None:
        key = inputs["text_key"][group].tobytes()
        self.lookups.add(key in self._held)
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        if "embedding" not in inputs:
            return None
        text = self._model.text_kv(torch.from_numpy(inputs["embedding"][group]))
        self._held[key] = text
        if len(self._held) > self._max_texts:
            self._held.popitem(last=False)
        return text
