"""The entry of every `model_repository/*/1/model.py`: a hosted model as Triton's Python backend calls it.

A composition root like `app`: reads the settings (from the environment, as the gateway or the container gives them),
loads one model, and turns Triton's requests into calls of its host. Tensors go in and out by DLPack only: the stub's
numpy bridge is wrong with numpy 2. Imported in Triton's stub process alone.
"""

from __future__ import annotations

import contextlib
import json
import locale
import logging
import os
from dataclasses import replace
from typing import Any

import triton_python_backend_utils as pb_utils

from wavserve.app import settings_sources
from wavserve.app.model_config import runner_config
from wavserve.bundle import bundle
from wavserve.core import remote_errors
from wavserve.core.errors import Cancelled, InvalidRequest, SettingsError, WavserveError
from wavserve.core.types import Tensors
from wavserve.models.runners import exchange, host
from wavserve.models.runners.host import Host
from wavserve.system.processes import NICENESS
from wavserve.system.telemetry import configure_logging

log = logging.getLogger(__name__)


class TritonPythonModel:
    """Which model it is, `model_name` tells."""

    def initialize(self, args: dict[str, str]) -> None:
        # the stub takes files for ASCII otherwise, whatever PYTHONUTF8 is, and torch's compiler cannot read its own
        with contextlib.suppress(locale.Error):
            locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
        try:
            self._host = _load(args)
        except WavserveError as error:
            raise pb_utils.TritonModelException(remote_errors.encode(error)) from error

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._answer(request) for request in requests]

    def finalize(self) -> None:
        self._host.close()

    def _answer(self, request: Any) -> Any:
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
    told = settings_sources.load_from_process(None).settings
    configure_logging(told.log.level, told.log.format)
    on_gpu = args["model_instance_kind"] == "GPU"
    if on_gpu and args["model_instance_device_id"] != "0":
        raise SettingsError("a Triton serves one GPU: expected one in CUDA_VISIBLE_DEVICES, got several")
    device = told.backend.device if on_gpu or told.backend.device == "cuda" else "cpu"
    if device == "cpu":
        os.nice(NICENESS)  # before there are threads
    config = replace(runner_config(told), device=device)
    return host.load(args["model_name"], bundle.load(told.bundle.folder), config, told.arena.prefix)


def _inputs(request: Any) -> Tensors:
    return {tensor.name(): exchange.to_numpy(tensor.to_dlpack()) for tensor in request.inputs()}


def _code(error: WavserveError) -> int:
    """Triton's own code beside ours in the message, for whoever reads its logs and metrics."""
    kinds = {InvalidRequest: pb_utils.TritonError.INVALID_ARG, Cancelled: pb_utils.TritonError.CANCELLED}
    codes = (code for kind, code in kinds.items() if isinstance(error, kind))
    return int(next(codes, pb_utils.TritonError.UNAVAILABLE))
