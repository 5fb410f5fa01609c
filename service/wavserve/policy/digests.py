"""sha256 digests of a plan's inputs: they tell a retry from a new request, and the receipt has them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from wavserve.core.rtc import RtcRequest
from wavserve.core.types import PlanRequest, TextEmbedding
from wavserve.policy.sessions import FrameMemory


def input_digests(request: PlanRequest) -> dict[str, str]:
    """A digest of each decoded image, of the state, of the instruction, and of a left-over.

    Hashing images takes time, so a digest that the request already has is reused.
    """
    known = request.image_digests
    images = {name: known.get(name) or image_digest(image) for name, image in sorted(request.images.items())}
    rtc = request.rtc
    left_over = {} if rtc is None or not rtc.prev_chunk_left_over.size else {"left_over": _left_over_digest(rtc)}
    return {
        **left_over,
        **{f"images.{name}": digest for name, digest in images.items()},
        "state": _sha256(request.state.tobytes()),
        "instruction": TextEmbedding.key_of(request.instruction).hex(),
    }


def image_digest(image: NDArray[np.uint8]) -> str:
    """Of an image's pixels, row by row. Hashing a large image takes about a millisecond: not on the event loop."""
    return hashlib.sha256(np.ascontiguousarray(image).data).hexdigest()


def content_digest(request: PlanRequest, inputs: dict[str, str]) -> str:
    """One digest of everything that makes two requests the same. The deadline is not part of it."""
    rest = {
        "control_step": request.control_step,
        "executed_steps": request.executed_steps,
        "options": dict(request.options),
        "seed": request.seed,
        "imagine_chunks": request.imagine_chunks,
        "rtc": None if request.rtc is None else rtc_facts(request.rtc),
    }
    return _sha256(json.dumps([inputs, rest], sort_keys=True).encode())


def rtc_facts(rtc: RtcRequest) -> dict[str, object]:
    """What a request asks of real-time chunking, besides its left-over."""
    return {each.name: getattr(rtc, each.name) for each in fields(rtc) if each.name != "prev_chunk_left_over"}


def _left_over_digest(rtc: RtcRequest) -> str:
    return _sha256(np.ascontiguousarray(rtc.prev_chunk_left_over, np.float32).tobytes())


def memory_digest(memory: FrameMemory) -> str:
    """Of a session's frame memory. For many cameras it takes a fraction of a millisecond: not on the event loop."""
    return hashlib.sha256(np.ascontiguousarray(memory.frames).data).hexdigest()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
