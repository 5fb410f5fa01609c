"""The runners of the value model (`score`, `value_features`) and of the action model (`decode`).

The same code runs in-process and in Triton. The runners read video features from the arena. They never allocate slots,
and they release slots in their own cells of the book. They draw each noise from the name in its request.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from wavserve.core import noise
from wavserve.core.noise import Stream
from wavserve.core.spec import PolicySpec
from wavserve.core.types import Tensors
from wavserve.models.arena.arena import Arena, ArenaFinder
from wavserve.models.arena.book import ArenaRole
from wavserve.models.fast.expert import FastAction, FastValue, Read
from wavserve.models.fast.guided import GuidedAction
from wavserve.models.networks.flow import OnStep
from wavserve.models.networks.guidance import Guidance, Prefix
from wavserve.models.runners.calls import CancelCheck, not_cancelled, on_slots, release, stop_if

_CONTINUED = {"history", "left_over", "weights", "max_weight", "num_frozen"}
"""The inputs of `decode` that become torch tensors."""


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
    """`decode` returns the action chunk for one video sample and its value features, and releases the slot.

    A chunk that continues a left-over under guidance is computed by `guided`, every other one by `model`.
    """

    def __init__(self, model: FastAction, guided: GuidedAction, spec: PolicySpec, arenas: ArenaFinder) -> None:
        self._noise_shape = (spec.chunk, spec.model.action.in_channels)
        self._model, self._guided = model, guided
        self._arenas = arenas

    def run(self, verb: str, inputs: Tensors, cancelled: CancelCheck = not_cancelled) -> Tensors:
        stop_if(cancelled)
        actions = np.zeros((len(inputs["history"]), *self._noise_shape), np.float32)

        def compute(arena: Arena, own: Tensors, slots: NDArray[np.int64], live: NDArray[np.intp]) -> None:
            initial = torch.from_numpy(noise.call_noise(own, Stream.ACTION, self._noise_shape)).to(arena.device)
            reads = partial(arena.read_video, slots=slots), partial(arena.read_value, slots=slots)
            decoded = self._decode(own, initial, reads, lambda _: stop_if(cancelled))
            actions[live] = decoded.float().cpu().numpy()

        status = on_slots(self._arenas, ArenaRole.ACTION, inputs, compute)
        release(self._arenas, ArenaRole.ACTION, inputs["handles"])
        return {"actions": actions, "status": status}

    def _decode(self, own: Tensors, initial: Tensor, reads: tuple[Read, Read], on_step: OnStep) -> Tensor:
        """Actions `[R, T, C]`, integrated from `initial`: free, guided, or after a clean prefix."""
        own_tensors = {name: torch.from_numpy(own[name]).to(initial.device) for name in _CONTINUED & own.keys()}
        history, num_steps = own_tensors.pop("history"), _flow_steps(own)
        if "weights" in own_tensors:
            weights, max_weight = own_tensors["weights"], own_tensors["max_weight"][:, 0]
            guidance = Guidance(own_tensors["left_over"], weights, max_weight)
            return self._guided.integrate(initial, history, reads, num_steps, guidance, on_step)
        contexts = self._model.cross_kv(reads[0]), self._model.value_kv(reads[1])
        if "num_frozen" in own_tensors:
            prefix = Prefix(own_tensors["left_over"], own_tensors["num_frozen"][:, 0])
            return self._model.integrate_after(prefix, initial, history, contexts, num_steps, on_step)
        return self._model.integrate(initial, history, *contexts, num_steps, on_step)


def _flow_steps(inputs: Tensors) -> int:
    return int(inputs["flow_steps"][0, 0])
