"""Recorded plans: the request, the session as it was before, and the answer, in one safetensors file each.

Frames are kept as decoded, so a replay sees the same bits.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from wavserve.core.errors import BundleError, SettingsError, shown
from wavserve.core.messages import ActionChunk
from wavserve.core.rtc import RtcRequest
from wavserve.core.types import Array, Gaussian, PlanRequest
from wavserve.policy.digests import rtc_facts
from wavserve.policy.sessions import FrameMemory, LastPlan, Session

FORMAT = "wavserve-record-2"
_NOT_FACTS = ("images", "image_digests", "state", "rtc", "epoch")  # tensors of their own, and what a replay has anew


@dataclass(frozen=True, slots=True)
class Record:
    """One recorded plan, ready for a replay: `request` has the seed and the iterations that were spent."""

    request: PlanRequest
    memory: FrameMemory | None
    last: LastPlan | None
    """the session's last plan: a warm start begins there, and the gate measures from its actions"""
    policy_digest: str
    actions: Array
    """`[T, A]` as answered"""
    dtype: str | None = None
    """numeric type of the models; None: an older record without it"""


class Recorder:
    """Writes plans into a folder, one file each."""

    def __init__(self, folder: Path) -> None:
        """Raises SettingsError when the folder cannot be made."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"record.folder: expected a folder that can be made, got {folder}: {error}") from error
        self._folder = folder

    async def keep(self, request: PlanRequest, before: Session, chunk: ActionChunk, dtype: str) -> None:
        """`dtype`: numeric type of the models. Raises OSError or SafetensorError, as `save` does."""
        path = self._folder / f"{chunk.session_id}-{chunk.sequence:08d}.safetensors"
        await asyncio.to_thread(save, path, request, before, chunk, dtype)


def save(path: Path, request: PlanRequest, before: Session, chunk: ActionChunk, dtype: str) -> None:
    """Writes one plan. Raises OSError or SafetensorError, and then leaves nothing of it behind."""
    tensors: dict[str, NDArray[Any]] = {f"images.{name}": image for name, image in request.images.items()}
    tensors |= {"state": request.state, "actions": chunk.actions}
    if before.memory is not None:
        tensors["memory"] = before.memory.frames
    if (rtc := request.rtc) is not None:
        tensors["left_over"] = rtc.prev_chunk_left_over
    receipt, last = chunk.receipt, before.last
    if last is not None:
        tensors |= {"last.video": last.video.mean, "last.value": last.value.mean}
        tensors |= {} if last.actions is None else {"last.actions": last.actions}
    facts = {
        "format": FORMAT,
        "request": {each.name: getattr(request, each.name) for each in fields(request) if each.name not in _NOT_FACTS},
        "rtc": None if rtc is None else rtc_facts(rtc),
        "memory_steps": 0 if before.memory is None else before.memory.steps,
        "last": None if last is None else {"instruction": last.instruction, "control_step": last.control_step},
        "last_at_one_sample": last is not None and not last.video.std.any(),
        "policy_digest": receipt.policy_digest,
        "dtype": dtype,
        "seed": receipt.seed,
        "config": {**asdict(receipt.config), "num_iterations": receipt.iterations_done},
    }
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    partial = path.with_suffix(".partial")
    try:
        save_file(contiguous, partial, metadata={"wavserve": json.dumps(facts)})
        partial.rename(path)  # a reader never sees half a record
    except BaseException:
        partial.unlink(missing_ok=True)  # on a full disk it would take what is left
        raise


def load(path: Path) -> Record:
    """Reads one plan. Raises BundleError when the file is not a record, or a damaged one."""
    try:
        with safe_open(path, framework="np") as file:
            facts = json.loads((file.metadata() or {}).get("wavserve", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        return _record(facts, tensors)
    except BundleError as error:
        raise BundleError(f"{path}: {error.message}") from error
    except (OSError, SafetensorError) as error:
        raise BundleError(f"{path}: expected a record made by `serve --record`: {error}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # facts or tensors are missing, or other ones
        raise BundleError(f"{path}: expected a whole record, got a damaged one: {error!r}") from error


def _record(facts: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> Record:
    if facts.get("format") != FORMAT:
        raise BundleError(f"expected format {FORMAT}, got {shown(facts.get('format'))}")
    memory = FrameMemory(tensors["memory"], facts["memory_steps"]) if "memory" in tensors else None
    request, last = _request(facts, tensors), _last(facts, tensors)
    return Record(request, memory, last, facts["policy_digest"], tensors["actions"], facts.get("dtype"))


def _last(facts: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> LastPlan | None:
    """Of the Gaussians only the means matter, because a warm start resets the spread, and whether there is a spread."""
    if facts["last"] is None:
        return None
    std = 0.0 if facts.get("last_at_one_sample") else 1.0
    video, value = (Gaussian(tensors[name], np.full_like(tensors[name], std)) for name in ("last.video", "last.value"))
    return LastPlan(**facts["last"], video=video, value=value, actions=tensors.get("last.actions"))


def _request(facts: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> PlanRequest:
    images = {name.removeprefix("images."): image for name, image in tensors.items() if name.startswith("images.")}
    stated = facts.get("rtc")  # an older record has none
    rtc = None if stated is None else RtcRequest(**stated, prev_chunk_left_over=tensors["left_over"])
    request = PlanRequest(images=images, state=tensors["state"], rtc=rtc, **facts["request"])
    return replace(request, seed=facts["seed"], options=facts["config"])
