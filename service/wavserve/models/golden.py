"""Makes the golden plan of a bundle by the plain path, in float32 on the CPU.

The plain path is the reference of the paths that serve robots: a device whose fast path, weights, numeric type or
statistics went wrong makes other actions. This module knows nothing of serving.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wavserve.bundle import bundle, golden
from wavserve.bundle.bundle import Bundle
from wavserve.bundle.golden import Golden
from wavserve.core.errors import BundleError
from wavserve.core.normalise import accepted_range, action_range
from wavserve.core.spec import CameraSpec, PolicySpec
from wavserve.core.types import Array
from wavserve.models.networks.encoder import Encoder
from wavserve.models.networks.plain import Plain, Scene
from wavserve.models.reference import first_scene, named_draws, reference_actions
from wavserve.models.weights import weights

SEED = 0
_INSTRUCTION = "pick up the red block and put it into the box"
_BLOCK = 16
"""pixels of one colour along each side, so that a picture looks a little like a camera's"""


def add_golden(folder: Path) -> Golden:
    """Makes the golden plan of the bundle in `folder` and stores it there.

    Raises BundleError when the bundle has one already: replacing it would hide what it is there to find.
    """
    opened = bundle.load(folder)
    if opened.golden is not None:
        raise BundleError(f"{folder / golden.FILE}: expected no golden plan yet, got one; delete it first")
    made = make_golden(opened)
    partial = folder / f".{golden.FILE}.{os.getpid()}.partial"
    try:
        partial.write_bytes(golden.pack(made))
        partial.rename(folder / golden.FILE)
    finally:
        partial.unlink(missing_ok=True)
    return made


def make_golden(opened: Bundle) -> Golden:
    """The plan of an example observation. It loads every part of the bundle, the encoders first and then the rest."""
    spec = opened.spec
    images = {camera.name: _picture(camera, index) for index, camera in enumerate(spec.cameras)}
    state, instruction = _state(spec), _instruction(spec)
    scene = _scene(opened, images, state, instruction)
    plain = Plain(weights.load(opened.folder / bundle.TRANSFORMER, spec.model), spec.model, spec.latent)
    actions = reference_actions(plain, spec, scene, named_draws(spec, (SEED, 0)), state)
    return Golden(images, state, instruction, SEED, actions)


def _scene(opened: Bundle, images: dict[str, NDArray[np.uint8]], state: Array, instruction: str) -> Scene:
    """The encoders are given back before the other parts are loaded."""
    encoder = Encoder(opened.folder)
    pixels = np.stack([images[camera.name] for camera in opened.spec.cameras])
    latents = encoder.encode_images(pixels[None])[0]
    (text,) = encoder.encode_text([instruction.encode()])
    return first_scene(opened.spec, latents, text, state)


def _picture(camera: CameraSpec, index: int) -> NDArray[np.uint8]:
    """RGB `[height, width, 3]`: blocks of random colours, others for each camera."""
    rows, columns = (-(-side // _BLOCK) for side in (camera.height, camera.width))
    draws = np.random.default_rng([SEED, index]).integers(0, 256, (rows, columns, 3), np.uint8)
    whole: NDArray[np.uint8] = draws.repeat(_BLOCK, axis=0).repeat(_BLOCK, axis=1)
    return np.ascontiguousarray(whole[: camera.height, : camera.width])


def _state(spec: PolicySpec) -> Array:
    """A state well inside its statistics, with another place for each dimension."""
    centre = np.mean(accepted_range(spec.state.norm), axis=0)
    state: Array = (centre + action_range(spec.state.norm) * np.linspace(-0.25, 0.25, spec.state.dim)).astype(
        np.float32
    )
    return state


def _instruction(spec: PolicySpec) -> str:
    """As much of the example as the policy takes. A tokeniser makes at most a token of each byte, and one more."""
    return _INSTRUCTION[: max(1, min(spec.max_instruction_bytes, spec.max_prompt_tokens - 1))].strip()
