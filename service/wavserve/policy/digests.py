"""sha256 digests of a plan's inputs: they tell a retry from a new request, and the receipt has them."""

from __future__ import annotations

import hashlib
import json

from wavserve.core.types import PlanRequest, TextEmbedding
from wavserve.policy.sessions import FrameMemory


def input_digests(request: PlanRequest) -> dict[str, str]:
    """A digest of each decoded image, of the state and of the instruction."""
    images = {f"images.{name}": _sha256(image.tobytes()) for name, image in sorted(request.images.items())}
    return {
        **images,
        "state": _sha256(request.state.tobytes()),
        "instruction": TextEmbedding.key_of(request.instruction).hex(),
    }


def content_digest(request: PlanRequest, inputs: dict[str, str]) -> str:
    """One digest of everything that makes two requests the same. The deadline is not part of it."""
    rest = {
        "control_step": request.control_step,
        "executed_steps": request.executed_steps,
        "options": dict(request.options),
        "seed": request.seed,
        "imagine_chunks": request.imagine_chunks,
    }
    return _sha256(json.dumps([inputs, rest], sort_keys=True).encode())


def memory_digest(memory: FrameMemory) -> str:
    return _sha256(memory.frames.tobytes())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
