"""`fused.block` compiled by torch for the machine it runs on: before the service is ready, and never after.

Called by `loading`, and by benchmarks. A model *rehearses*: it runs once on each kind of shapes, the numbers of rows
and text tokens left open, and that is all that is ever compiled. Other shapes run as they are written, and so does
everything where no compiler works. torch keeps what it compiled on disk (in `TORCHINDUCTOR_CACHE_DIR`, else in a folder
of its own among the temporary files), so only the first start on a machine is long.
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
from wavserve.models.fast.fused import EVERYTHING, BlockStep, KeyValue, Reach, block
from wavserve.models.networks.layers import Block

log = logging.getLogger(__name__)

MAX_GRAPHS = 64
"""Compilations a process may make in all; a service makes six. torch's own limit is eight."""


class ShapeTracing(Protocol):
    """A model's fast path."""

    def trace_shapes(self) -> None:
        """Runs every kind of block that a plan of one video step has, on rows enough to be told from other sizes."""
        ...


Model = TypeVar("Model", bound=ShapeTracing)


class CompiledBlock:
    """A `BlockStep` for one model on one device. `open_axis`: of its contexts' keys and values, the axis whose length
    varies."""

    def __init__(self, open_axis: int, device: torch.device) -> None:
        self._open_axis, self._on_cpu = open_axis, device.type == "cpu"
        self._compiled: BlockStep = torch.compile(block)
        self._tracing = False
        # from now on, what no rehearsal compiled runs as it is written: no robot waits for a compiler
        torch.compiler.set_stance("eager_on_recompile")

    def __call__(
        self,
        layer: Block,
        x: Tensor,
        temb: Tensor,
        rotary: Tensor,
        contexts: Sequence[KeyValue],
        reach: Reach = EVERYTHING,
    ) -> None:
        if self._tracing:
            torch._dynamo.mark_dynamic(x, 0)
            for part in (part for context in contexts for part in context):
                torch._dynamo.mark_dynamic(part, self._open_axis)
        self._compiled(layer, x, temb, rotary, contexts, reach)

    def trace_shapes(self, run: Callable[[], None]) -> None:
        """Compiles what `run` has this step do. Raises whatever the compiler fails with."""
        self._tracing = True
        try:
            with (
                torch.compiler.set_stance("default"),
                # what differs between models is no reason to leave a width open, only the marks above are
                torch._dynamo.config.patch(recompile_limit=MAX_GRAPHS, automatic_dynamic_shapes=False),
                # else torch keeps processes of its own; the wrapper: a call without Python between its kernels (for
                # a GPU it would need CUDA's headers)
                torch._inductor.config.patch(compile_threads=1, cpp_wrapper=self._on_cpu),
                shapes.patch(backed_size_oblivious=True),  # type: ignore[attr-defined]  # one row is no case of its own
            ):
                run()
        finally:
            self._tracing = False


def compiled(name: str, make: Callable[..., Model], open_axis: int, device: torch.device, required: bool) -> Model:
    """The model `make` builds on `device` around a compiled step, rehearsed; where that fails, uncompiled, which is
    logged.

    Raises SettingsError instead where compilation is `required`.
    """
    started = time.perf_counter()
    try:
        step = CompiledBlock(open_axis, device)
        model = make(step=step)
        step.trace_shapes(model.trace_shapes)
    except Exception as error:  # a compiler fails in any way it likes, and nothing depends on it
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        if required:
            raise SettingsError(
                f"backend.compile: on needs a compiler that works; try auto or off: {reason}"
            ) from error
        log.warning("%s: runs uncompiled, for torch's compiler does not work here: %s", name, reason)
        return make(step=block)
    log.info("%s: compiled in %.1f s", name, time.perf_counter() - started)
    return model
