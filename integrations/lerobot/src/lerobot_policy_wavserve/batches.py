"""LeRobot's batches as what single environments show: pictures of eight bits, a state, an instruction.

Torch's tensors are used by their methods only. Knows neither the policy nor the service.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lerobot_policy_wavserve.sessions import Seen
from wavserve.core.errors import InvalidRequest, shown

if TYPE_CHECKING:
    from torch import Tensor

STATE = "observation.state"
_IMAGES = ("observation.images.", "observation.image")


def image_keys(batch: Mapping[str, Any]) -> list[str]:
    """The keys of the batch that are pictures: `observation.image` and `observation.images.*`."""
    return [key for key in batch if key == _IMAGES[1] or key.startswith(_IMAGES[0])]


def state_of(batch: Mapping[str, Any]) -> NDArray[np.float64]:
    """`[B, S]`. Raises InvalidRequest."""
    state = batch.get(STATE)
    if state is None or state.ndim != 2:
        raise InvalidRequest(STATE, "[environments, numbers]", "nothing" if state is None else f"{list(state.shape)}")
    return np.asarray(state.double().cpu())


def seen_by(batch: Mapping[str, Any], cameras: Mapping[str, str], instructions: list[str]) -> list[Seen]:
    """What each environment shows. `cameras`: key of the batch -> camera of the policy. Raises InvalidRequest."""
    states = state_of(batch)
    pictures = {camera: pixels(key, batch[key]) for key, camera in cameras.items()}
    for camera, key in zip(pictures, cameras, strict=True):
        if len(pictures[camera]) != len(states):
            raise InvalidRequest(key, f"{len(states)} pictures, as many as states", len(pictures[camera]))
    return [
        Seen(
            images={camera: pictures[camera][index] for camera in pictures},
            state=tuple(states[index].tolist()),
            instruction=instructions[index],
        )
        for index in range(len(states))
    ]


def instructions_of(batch: Mapping[str, Any], key: str, default: str) -> list[str]:
    """The instruction of each environment; `default` where the batch has none. Raises InvalidRequest."""
    num_environments = len(state_of(batch))
    given = batch.get(key) or [""] * num_environments
    texts = [given] * num_environments if isinstance(given, str) else list(given)
    if len(texts) != num_environments or not all(isinstance(text, str) for text in texts):
        raise InvalidRequest(key, f"{num_environments} texts", shown(given))
    filled = [text or default for text in texts]
    if not all(text.strip() for text in filled):
        raise InvalidRequest(key, "an instruction, or a default_instruction in the configuration", "nothing")
    return filled


def pixels(key: str, pictures: Tensor) -> NDArray[np.uint8]:
    """`[B, height, width, 3]` of `[B, 3, height, width]`: bytes, or the numbers from 0 to 1 that LeRobot makes of them.

    Raises InvalidRequest.
    """
    if pictures.ndim != 4 or pictures.shape[1] != 3:
        raise InvalidRequest(key, "[environments, 3, height, width]", f"{list(pictures.shape)}")
    values = np.asarray(pictures.float().cpu() if pictures.is_floating_point() else pictures.cpu())
    if values.dtype != np.uint8:
        low, high = values.min(initial=0.0), values.max(initial=0.0)
        if values.dtype != np.float32 or not (low >= 0 and high <= 1):  # also true for NaN
            raise InvalidRequest(key, "bytes, or numbers from 0 to 1", f"{values.dtype} from {low:g} to {high:g}")
        values = np.rint(values * 255).astype(np.uint8)
    return np.ascontiguousarray(values.transpose(0, 2, 3, 1))
