"""Kept plans: the request, the session as it was before, and the answer, in one safetensors file each.

Written by the service when it records, read by `replay`. Frames are kept as decoded, so a replay sees the same bits.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from wavserve.core.errors import BundleError, SettingsError
from wavserve.core.messages import ActionChunk
from wavserve.core.types import Array, Gaussian, PlanRequest
from wavserve.policy.sessions import FrameMemory, LastPlan, Session

FORMAT = "wavserve-record-2"


@dataclass(frozen=True, slots=True)
class Record:
    """One kept plan, ready to be made again: `request` pins seed and iterations to what was spent."""

    request: PlanRequest
    memory: FrameMemory | None
    last: LastPlan | None
    """what a warm start began from"""
    policy_digest: str
    actions: Array
    """`[T, A]` as answered"""
    dtype: str | None = None
    """what the models computed in; None: made before records told it"""


class Recorder:
    """Keeps plans in a folder, one file each."""

    def __init__(self, folder: Path) -> None:
        """Raises SettingsError when the folder cannot be made."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"record.folder: expected a folder that can be made, got {folder}: {error}") from error
        self._folder = folder

    async def keep(self, request: PlanRequest, before: Session, result: ActionChunk, dtype: str) -> None:
        """`dtype`: what the models computed in. Raises OSError or SafetensorError, as `save` does."""
        path = self._folder / f"{result.session_id}-{result.sequence:08d}.safetensors"
        await asyncio.to_thread(save, path, request, before, result, dtype)


def save(path: Path, request: PlanRequest, before: Session, result: ActionChunk, dtype: str) -> None:
    """Writes one plan. Raises OSError or SafetensorError."""
    tensors: dict[str, NDArray[Any]] = {f"images.{name}": image for name, image in request.images.items()}
    tensors |= {"state": request.state, "actions": result.actions}
    if before.memory is not None:
        tensors["memory"] = before.memory.frames
    receipt, last = result.receipt, before.last if result.receipt.warm_start else None
    if last is not None:
        tensors |= {"last.video": last.video.mean, "last.value": last.value.mean}
    told = {
        "format": FORMAT,
        "request": {name: value for name, value in asdict(request).items() if name not in ("images", "state")},
        "memory_steps": 0 if before.memory is None else before.memory.steps,
        "last": None if last is None else {"instruction": last.instruction, "control_step": last.control_step},
        "policy_digest": receipt.policy_digest,
        "dtype": dtype,
        "seed": receipt.seed,
        "config": {**asdict(receipt.config), "num_iterations": receipt.iterations_done},
    }
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    partial = path.with_suffix(".partial")
    save_file(contiguous, partial, metadata={"wavserve": json.dumps(told)})
    partial.rename(path)  # a record is whole or not there


def load(path: Path) -> Record:
    """Reads one plan. Raises BundleError when the file is not a record."""
    try:
        with safe_open(path, framework="np") as file:
            told = json.loads((file.metadata() or {}).get("wavserve", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError) as error:
        raise BundleError(f"{path}: expected a record made by `serve --record`: {error}") from error
    if told.get("format") != FORMAT:
        raise BundleError(f"{path}: expected format {FORMAT}, got {told.get('format')}")
    memory = FrameMemory(tensors["memory"], told["memory_steps"]) if "memory" in tensors else None
    request, last = _request(told, tensors), _last(told, tensors)
    return Record(request, memory, last, told["policy_digest"], tensors["actions"], told.get("dtype"))


def _last(told: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> LastPlan | None:
    """Only its means matter: a warm start keeps no spread."""
    if told["last"] is None:
        return None
    video, value = (Gaussian(tensors[name], np.ones_like(tensors[name])) for name in ("last.video", "last.value"))
    return LastPlan(**told["last"], video=video, value=value)


def _request(told: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> PlanRequest:
    images = {name.removeprefix("images."): image for name, image in tensors.items() if name.startswith("images.")}
    request = PlanRequest(images=images, state=tensors["state"], **told["request"])
    return replace(request, seed=told["seed"], options=told["config"])
