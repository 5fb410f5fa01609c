"""The entry point of every `model_repository/*/1/model.py`: one hosted model, called by Triton's Python backend.

The composition root of a model's process. It reads the settings from the environment that the gateway or the container
sets, loads one model, and turns Triton's requests into calls of its host. Tensors pass by DLPack only, because the
stub's numpy bridge is wrong with numpy 2. It can be imported only in Triton's stub process. It imports libraries late,
because the environment must be pinned first.
"""

from __future__ import annotations

import contextlib
import json
import locale
import logging
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import triton_python_backend_utils as pb_utils

from wavserve.app import environment
from wavserve.app.triton_gauges import ModelMetrics
from wavserve.core import remote_errors
from wavserve.core.errors import Cancelled, InvalidRequest, SettingsError, WavserveError
from wavserve.core.types import Tensors
from wavserve.system.processes import NICENESS

if TYPE_CHECKING:
    from wavserve.models.runners.host import Host

log = logging.getLogger(__name__)


class TritonPythonModel:
    """One class for all models. Triton's argument `model_name` says which one to load."""

    def initialize(self, args: dict[str, str]) -> None:
        # else the stub reads files as ASCII, whatever PYTHONUTF8 is, and torch's compiler cannot read its own files
        with contextlib.suppress(locale.Error):
            locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
        try:
            environment.pin_libraries()
            self._host = _load(args)
            host = self._host
            self._metrics = ModelMetrics(host.model, host.memory, host.lookups, pb_utils.MetricFamily, time.monotonic)
        except WavserveError as error:
            raise pb_utils.TritonModelException(remote_errors.encode(error)) from error

    def execute(self, requests: list[Any]) -> list[Any]:
        answers = [self._answer(request) for request in requests]
        self._metrics.refresh()
        return answers

    def finalize(self) -> None:
        self._host.close()

    def _answer(self, request: Any) -> Any:
        from wavserve.models.runners import exchange

        try:
            verb = json.loads(request.parameters()).get("verb", "")
            outputs = self._host.run(verb, _inputs(request), request.is_cancelled)
        except WavserveError as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(remote_errors.encode(error), _code(error)))
        except Exception as error:
            log.exception("%s: a call failed", self._host.model)
            fault = f"{self._host.model}: {type(error).__name__}: {error}"
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(fault, pb_utils.TritonError.INTERNAL))
        tensors = [pb_utils.Tensor.from_dlpack(name, exchange.to_dlpack(value)) for name, value in outputs.items()]
        return pb_utils.InferenceResponse(tensors)


def _load(args: dict[str, str]) -> Host:
    from wavserve.app import settings_sources
    from wavserve.app.model_config import runner_config
    from wavserve.bundle import bundle
    from wavserve.models.runners import host
    from wavserve.system.log_lines import configure_logging

    settings = settings_sources.load_from_process(None).settings
    configure_logging(settings.log.level, settings.log.format)
    on_gpu = args["model_instance_kind"] == "GPU"
    if on_gpu and args["model_instance_device_id"] != "0":
        raise SettingsError("a Triton serves one GPU: expected one in CUDA_VISIBLE_DEVICES, got several")
    device = settings.backend.device if on_gpu or settings.backend.device == "cuda" else "cpu"
    if device == "cpu":
        os.nice(NICENESS)  # before any thread starts
    config = replace(runner_config(settings), device=device)
    return host.load(args["model_name"], bundle.load(settings.bundle.folder), config, settings.arena.prefix)


def _inputs(request: Any) -> Tensors:
    from wavserve.models.runners import exchange

    return {tensor.name(): exchange.to_numpy(tensor.to_dlpack()) for tensor in request.inputs()}


def _code(error: WavserveError) -> int:
    """Triton's own code for the error, for its logs and metrics. Our code is in the message."""
    kinds = {InvalidRequest: pb_utils.TritonError.INVALID_ARG, Cancelled: pb_utils.TritonError.CANCELLED}
    codes = (code for kind, code in kinds.items() if isinstance(error, kind))
    return int(next(codes, pb_utils.TritonError.UNAVAILABLE))
