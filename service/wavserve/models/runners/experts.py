"""The runners of the value model (`score`, `value_features`) and of the action model (`decode`).

The same code runs in-process and in Triton. The runners read video features from the arena. They never allocate slots,
and they release slots in their own cells of the book. They draw each noise from the name in its request.
"""

from __future__ import annotations

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray

from wavserve.core import noise
from wavserve.core.noise import Stream
from wavserve.core.spec import PolicySpec
from wavserve.core.types import Tensors
from wavserve.models.arena.arena import Arena, ArenaFinder
from wavserve.models.arena.book import ArenaRole
from wavserve.models.fast.expert import FastAction, FastValue
from wavserve.models.runners.calls import CancelCheck, not_cancelled, on_slots, release, stop_if


class ValueRunner:
    """`score` integrates value samples on video features. `value_features` computes value features for `decode`."""

    def __init__(self, model: FastValue, spec: PolicySpec, arenas: ArenaFinder) -> None:
        self._noise_shape = (spec.num_value_tokens, spec.model.value.in_channels)
        self._model = model
        self._arenas = arenas

    def run(self, verb: str, inputs: Tensors, cancelled: CancelCheck = not_cancelled) -> Tensors:
        stop_if(cancelled)
        return self._score(inputs, cancelled) if verb == "score" else self._value_features(inputs)

    def _score(self, inputs: Tensors, cancelled: CancelCheck) -> Tensors:
        """State values: the last channel of the integrated tokens. Groups and video samples are folded to `(g n)`."""
        groups, num_samples, num_values = inputs["noise_name"].shape[:3]
        values = np.zeros((groups, num_samples, num_values, self._noise_shape[0]), np.float32)

        def compute(arena: Arena, own: Tensors, slots: NDArray[np.int64], live: NDArray[np.intp]) -> None:
            initial = torch.from_numpy(noise.call_noise(own, Stream.VALUE, self._noise_shape)).to(arena.device)
            kv = self._model.cross_kv(lambda layer: arena.read_video(layer, slots))
            folded = rearrange(initial, "g n m t c -> (g n) m t c")
            tokens = self._model.integrate(folded, kv, _flow_steps(own), lambda _: stop_if(cancelled))
            last = rearrange(tokens[..., -1], "(g n) m t -> g n m t", g=len(live))
            values[live] = last.float().cpu().numpy()

        status = on_slots(self._arenas, ArenaRole.VALUE, inputs, compute)
        if inputs["release"][0, 0]:
            release(self._arenas, ArenaRole.VALUE, inputs["handles"])
        return {"values": values, "status": status}

    def _value_features(self, inputs: Tensors) -> Tensors:
        def compute(arena: Arena, own: Tensors, slots: NDArray[np.int64], live: NDArray[np.intp]) -> None:
            initial = torch.from_numpy(noise.call_noise(own, Stream.VALUE, self._noise_shape)).to(arena.device)
            kv = self._model.cross_kv(lambda layer: arena.read_video(layer, slots))
            for layer, features in enumerate(self._model.features(rearrange(initial, "g 1 1 t c -> g t c"), kv)):
                arena.write_value(layer, slots, features)

        return {"status": on_slots(self._arenas, ArenaRole.VALUE, inputs, compute)}


class ActionRunner:
    """`decode` returns the action chunk for one video sample and its value features, and releases the slot."""

    def __init__(self, model: FastAction, spec: PolicySpec, arenas: ArenaFinder) -> None:
        self._noise_shape = (spec.chunk, spec.model.action.in_channels)
        self._model = model
        self._arenas = arenas

    def run(self, verb: str, inputs: Tensors, cancelled: CancelCheck = not_cancelled) -> Tensors:
        stop_if(cancelled)
        actions = np.zeros((len(inputs["history"]), *self._noise_shape), np.float32)

        def compute(arena: Arena, own: Tensors, slots: NDArray[np.int64], live: NDArray[np.intp]) -> None:
            initial = torch.from_numpy(noise.call_noise(own, Stream.ACTION, self._noise_shape)).to(arena.device)
            history = torch.from_numpy(own["history"]).to(arena.device)
            video_kv = self._model.cross_kv(lambda layer: arena.read_video(layer, slots))
            value_kv = self._model.value_kv(lambda layer: arena.read_value(layer, slots))
            decoded = self._model.integrate(
                initial, history, video_kv, value_kv, _flow_steps(own), lambda _: stop_if(cancelled)
            )
            actions[live] = decoded.float().cpu().numpy()

        status = on_slots(self._arenas, ArenaRole.ACTION, inputs, compute)
        release(self._arenas, ArenaRole.ACTION, inputs["handles"])
        return {"actions": actions, "status": status}


def _flow_steps(inputs: Tensors) -> int:
    return int(inputs["flow_steps"][0, 0])
