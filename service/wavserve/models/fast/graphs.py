"""An expert's blocks as CUDA graphs: recorded once for every kind of shapes, then a single launch a forward.

Called by `fast_expert` where `backend.cuda_graphs` asks for it. A GPU is done with an expert's small kernels before
Python has launched the next (figures of an H100: docs/benchmarks); the video model's are long enough without. Recorded
by hand, for the graphs of torch's compiler refuse functions that update their input, as blocks do.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from wavserve.models.fast.fused import KeyValue

Contexts = Sequence[Sequence[KeyValue]]
"""Of each cross-attention, what every block reads."""

Layers = Callable[[Tensor, Tensor, Contexts], None]
"""All blocks on `x [B, ..., D]`, in place, with the modulation `temb` and contexts."""

Replay = Callable[[], None]
Record = Callable[[Callable[[], None]], Replay]
"""Runs a function, maybe more than once, and returns what does the same again on the same tensors."""

MAX_GRAPHS = 32
"""Graphs kept of a model: as many numbers of rows and value samples. A dropped one is recorded again when needed."""


@dataclass(frozen=True, slots=True)
class _Graph:
    x: Tensor
    temb: Tensor
    replay: Replay


class Graphs:
    """`Layers` that replay what was recorded. One thread at a time.

    A graph works on the addresses it was recorded on. `x` and `temb` are copied to its own; contexts are large and are
    read where they lie, so a graph is good for contexts of the same places and shapes alone: `keep` puts them there.
    """

    def __init__(self, layers: Layers, record: Record, max_graphs: int = MAX_GRAPHS) -> None:
        self._layers, self._record, self._max_graphs = layers, record, max_graphs
        self._graphs: OrderedDict[tuple[object, ...], _Graph] = OrderedDict()
        self._kept: dict[tuple[int, int], KeyValue] = {}

    def keep(self, attention: int, layer: int, fresh: KeyValue) -> KeyValue:
        """A copy of `fresh [R, heads, L, d]` where that block's context always lies; good until the next one."""
        kept = self._kept.get((attention, layer))
        if kept is None or not _fits(fresh.key, kept.key):
            kept = KeyValue(*(torch.empty_like(part) for part in fresh))
            self._kept[attention, layer] = kept
        rows = len(fresh.key)
        return KeyValue(*(place[:rows].copy_(part) for place, part in zip(kept, fresh, strict=True)))

    def __call__(self, x: Tensor, temb: Tensor, contexts: Contexts) -> None:
        graph = self._graph(x, temb, contexts)
        graph.x.copy_(x)
        graph.temb.copy_(temb)
        graph.replay()
        x.copy_(graph.x)

    def _graph(self, x: Tensor, temb: Tensor, contexts: Contexts) -> _Graph:
        parts = (part for context in contexts for pair in context for part in pair)
        # a place that another tensor of the same shape has taken over is as good: whatever lies there is read
        key = (x.shape, temb.shape, *((part.data_ptr(), part.shape) for part in parts))
        if key in self._graphs:
            self._graphs.move_to_end(key)
            return self._graphs[key]
        own_x, own_temb = x.clone(), temb.clone()
        replay = self._record(partial(self._layers, own_x, own_temb, contexts))
        self._graphs[key] = graph = _Graph(own_x, own_temb, replay)
        if len(self._graphs) > self._max_graphs:
            self._graphs.popitem(last=False)
        return graph


def _fits(part: Tensor, place: Tensor) -> bool:
    return len(part) <= len(place) and part.shape[1:] == place.shape[1:] and part.dtype == place.dtype


def cuda_recorder() -> Record:
    """Records on the current CUDA device. All graphs of a recorder share their memory: one runs at a time."""
    pool = torch.cuda.graph_pool_handle()

    def record(run: Callable[[], None]) -> Replay:
        aside, stream = torch.cuda.Stream(), torch.cuda.current_stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(stream)
        with torch.cuda.stream(aside):
            run()  # loads kernels and makes workspaces, which cannot be recorded
        stream.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            run()
        return graph.replay

    return record
