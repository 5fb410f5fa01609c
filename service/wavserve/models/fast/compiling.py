"""Compiles `fused.block` with `torch.compile` at start-up. It never compiles later.

Each model is traced once on every kind of shapes, with the numbers of rows and of text tokens as dynamic dimensions.
Other shapes run eagerly. Where the compiler does not work, everything runs eagerly. torch caches compiled code on disk
(in `TORCHINDUCTOR_CACHE_DIR`, else in its own folder among the temporary files), so only the first start on a machine
is slow.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import torch
import torch._dynamo
import torch._inductor.config
import torch.fx.experimental._config as shapes
from torch import Tensor

from wavserve.core.errors import SettingsError
from wavserve.models.fast.fused import ALL_TOKENS, AttentionScope, BlockFunction, KeyValue, block
from wavserve.models.networks.layers import Block

log = logging.getLogger(__name__)

MAX_GRAPHS = 64
"""Compilations allowed per process. A service makes six; torch's default limit is eight."""


class ShapeTracing(Protocol):
    """A fast path that can be compiled."""

    def trace_shapes(self) -> None:
        """Runs a block call of every kind that occurs in a plan with one video step.

        The numbers of rows differ from all other sizes, so that the compiler can distinguish them.
        """
        ...


Model = TypeVar("Model", bound=ShapeTracing)


class CompiledBlock:
    """A compiled `BlockFunction` for one model on one device.

    `dynamic_axis`: the axis of the contexts' keys and values `[R, heads, L, d]` whose length varies between calls.
    """

    def __init__(self, dynamic_axis: int, device: torch.device) -> None:
        self._dynamic_axis, self._on_cpu = dynamic_axis, device.type == "cpu"
        self._compiled: BlockFunction = torch.compile(block)
        self._tracing = False
        # from now on, shapes that were not traced run eagerly: no request waits for the compiler
        torch.compiler.set_stance("eager_on_recompile")

    def __call__(
        self,
        layer: Block,
        x: Tensor,
        temb: Tensor,
        rotary: Tensor,
        contexts: Sequence[KeyValue],
        scope: AttentionScope = ALL_TOKENS,
    ) -> None:
        if self._tracing:
            torch._dynamo.mark_dynamic(x, 0)
            for part in (part for context in contexts for part in context):
                torch._dynamo.mark_dynamic(part, self._dynamic_axis)
        self._compiled(layer, x, temb, rotary, contexts, scope)

    def compile(self, run: Callable[[], None]) -> None:
        """Compiles every call of this function that `run` makes. Raises whatever the compiler raises."""
        self._tracing = True
        try:
            with (
                torch.compiler.set_stance("default"),
                # only the dimensions marked above are dynamic: widths that differ between models stay static
                torch._dynamo.config.patch(recompile_limit=MAX_GRAPHS, automatic_dynamic_shapes=False),
                # one thread: with more, torch keeps worker processes. The C++ wrapper runs no Python between kernels
                # (for a GPU it would need CUDA's headers)
                torch._inductor.config.patch(compile_threads=1, cpp_wrapper=self._on_cpu),
                shapes.patch(backed_size_oblivious=True),  # type: ignore[attr-defined]  # a size of 1 stays dynamic
            ):
                run()
        finally:
            self._tracing = False


def compiled(name: str, make: Callable[..., Model], dynamic_axis: int, device: torch.device, required: bool) -> Model:
    """The model that `make(run_block=...)` builds on `device`, with its blocks compiled.

    Where compilation fails, the model runs uncompiled and a warning is logged. If compilation is `required`, raises
    SettingsError instead. `dynamic_axis`: see `CompiledBlock`.
    """
    started = time.perf_counter()
    try:
        run_block = CompiledBlock(dynamic_axis, device)
        model = make(run_block=run_block)
        run_block.compile(model.trace_shapes)
    except Exception as error:  # the compiler may raise anything, and the model works without it
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        if required:
            raise SettingsError(f"backend.compile: on needs a working compiler; try auto or off: {reason}") from error
        log.warning("%s: runs uncompiled because torch's compiler does not work here: %s", name, reason)
        return make(run_block=block)
    log.info("%s: compiled in %.1f s", name, time.perf_counter() - started)
    return model
