"""An expert's blocks as CUDA graphs: captured once per combination of shapes, then replayed in one launch per forward.

A GPU finishes an expert's small kernels before Python launches the next one (figures of an H100: docs/benchmarks). The
video model's kernels are long enough without graphs. Capture is done by hand, because the CUDA graphs of
`torch.compile` refuse functions that mutate their input, as blocks do.
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
"""For each cross-attention, the keys and values that each block reads."""

Layers = Callable[[Tensor, Tensor, Contexts], None]
"""`layers(x, temb, contexts)`: all blocks on `x [B, ..., D]`, in place, with modulation `temb`."""

Replay = Callable[[], None]
Capture = Callable[[Callable[[], None]], Replay]
"""Captures a function. It may run the function more than once. The replay repeats it on the same tensors."""

MAX_GRAPHS = 32
"""Graphs kept per model: one per number of rows and of value samples. An evicted graph is captured again on demand."""


@dataclass(frozen=True, slots=True)
class _Graph:
    x: Tensor
    temb: Tensor
    replay: Replay


class Graphs:
    """`Layers` that are captured at the first call with new shapes or addresses, and replayed after that.

    A graph works on the addresses of its capture. Each call copies `x` and `temb` into the graph's own tensors.
    Contexts are too large to copy at every call, so a graph reads them in place and serves only contexts with the same
    addresses and shapes. `to_static` copies contexts to fixed addresses. Not safe for concurrent calls.
    """

    def __init__(self, layers: Layers, capture: Capture, max_graphs: int = MAX_GRAPHS) -> None:
        self._layers, self._capture, self._max_graphs = layers, capture, max_graphs
        self._graphs: OrderedDict[tuple[object, ...], _Graph] = OrderedDict()
        self._buffers: dict[tuple[int, int], KeyValue] = {}

    def to_static(self, attention: int, layer: int, context: KeyValue) -> KeyValue:
        """`context [R, heads, L, d]` copied into the static buffer of that block's cross-attention.

        The copy is valid until the next call for the same block and attention.
        """
        buffers = self._buffers.get((attention, layer))
        if buffers is None or not _fits(context.key, buffers.key):
            buffers = KeyValue(*(torch.empty_like(part) for part in context))
            self._buffers[attention, layer] = buffers
        rows = len(context.key)
        return KeyValue(*(buffer[:rows].copy_(part) for buffer, part in zip(buffers, context, strict=True)))

    def __call__(self, x: Tensor, temb: Tensor, contexts: Contexts) -> None:
        graph = self._graph(x, temb, contexts)
        graph.x.copy_(x)
        graph.temb.copy_(temb)
        graph.replay()
        x.copy_(graph.x)

    def _graph(self, x: Tensor, temb: Tensor, contexts: Contexts) -> _Graph:
        parts = (part for context in contexts for pair in context for part in pair)
        # another tensor of the same shape at the same address also works: the graph reads whatever is there
        key = (x.shape, temb.shape, *((part.data_ptr(), part.shape) for part in parts))
        if key in self._graphs:
            self._graphs.move_to_end(key)
            return self._graphs[key]
        own_x, own_temb = x.clone(), temb.clone()
        replay = self._capture(partial(self._layers, own_x, own_temb, contexts))
        self._graphs[key] = graph = _Graph(own_x, own_temb, replay)
        if len(self._graphs) > self._max_graphs:
            self._graphs.popitem(last=False)
        return graph


def _fits(part: Tensor, buffer: Tensor) -> bool:
    return len(part) <= len(buffer) and part.shape[1:] == buffer.shape[1:] and part.dtype == buffer.dtype


def cuda_capture() -> Capture:
    """Captures on the current CUDA device. Graphs of one `Capture` share a memory pool, so one may run at a time."""
    pool = torch.cuda.graph_pool_handle()

    def capture(run: Callable[[], None]) -> Replay:
        side_stream, stream = torch.cuda.Stream(), torch.cuda.current_stream()  # type: ignore[no-untyped-call]
        side_stream.wait_stream(stream)
        with torch.cuda.stream(side_stream):
            run()  # warm-up: loading kernels and allocating workspaces cannot be captured
        stream.wait_stream(side_stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            run()
        return graph.replay

    return capture
