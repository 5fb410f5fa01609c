"""A trained policy that acts in demonstrations: what serving without planning makes of the same pictures and state.

Knows the bundle and its models, and no simulator.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from wavserve.bundle import bundle
from wavserve.bundle.bundle import Bundle
from wavserve.core.errors import InvalidRequest
from wavserve.core.libero import ACTION_NAMES, CAMERAS, CONTROL_HZ, STATE_NAMES
from wavserve.core.resize import Pixels
from wavserve.core.spec import PolicySpec
from wavserve.models.networks.encoder import Encoder
from wavserve.models.networks.plain import Plain
from wavserve.models.reference import first_scene, named_draws, reference_actions
from wavserve.models.weights import weights


class BundlePolicy:
    """See `recording.Policy`. An episode's plans follow from its seed. One thread at a time."""

    def __init__(self, opened: Bundle) -> None:
        """Raises BundleError when a part does not load."""
        self._spec = opened.spec
        self._encoder = Encoder(opened.folder)
        models = weights.load(opened.folder / bundle.TRANSFORMER, self._spec.model)
        self._plain = Plain(models, self._spec.model, self._spec.latent)
        self._seed = self._num_plans = 0
        self._text = np.zeros((0, self._spec.model.video.caption_channels), np.float32)

    def begin(self, instruction: str, seed: int) -> None:
        """Begins an episode. Raises InvalidRequest for an instruction that the policy does not take."""
        self._seed, self._num_plans = seed, 0
        (self._text,) = self._encoder.encode_text([instruction.encode()])

    def plan(self, pictures: Mapping[str, Pixels], state: NDArray[np.float32]) -> NDArray[np.floating]:
        """See `recording.Policy`. Raises BackendError for a command that is not finite."""
        pixels = np.stack([pictures[camera.name] for camera in self._spec.cameras])
        scene = first_scene(self._spec, self._encoder.encode_images(pixels[None])[0], self._text, state)
        draws = named_draws(self._spec, (self._seed, self._num_plans))
        self._num_plans += 1
        return reference_actions(self._plain, self._spec, scene, draws, state)


@dataclass(frozen=True, slots=True)
class ActingPolicy:
    """A bundle that may act. Each call loads it anew, for one simulator."""

    opened: Bundle
    name: str
    """with the beginning of its digest: what a data set is told of it"""
    _loading: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)
    """The library that loads the text encoder is not made for several threads."""

    def __call__(self) -> BundlePolicy:
        torch.set_num_threads(1)  # of this thread: the simulators use the other cores, and sums keep their order
        with self._loading:
            return BundlePolicy(self.opened)


def acting_policy(folder: Path, size: int, replan_steps: int) -> ActingPolicy:
    """The bundle in a folder, for pictures of a size. Raises BundleError, and InvalidRequest where it does not fit."""
    opened = bundle.load(folder)
    for what, expected, actual in _requirements(opened.spec, size):
        if expected != actual:
            raise InvalidRequest("--policy", f"{what} {expected}", actual)
    if opened.spec.chunk < replan_steps:
        raise InvalidRequest("--policy", f"at least {replan_steps} actions a plan", opened.spec.chunk)
    return ActingPolicy(opened, f"{opened.spec.name} {bundle.digest(folder)[:16]}")


def _requirements(spec: PolicySpec, size: int) -> Iterator[tuple[str, object, object]]:
    yield "a policy with", "trained weights", "random weights" if spec.untrained else "trained weights"
    yield "cameras", ", ".join(CAMERAS), ", ".join(sorted(camera.name for camera in spec.cameras))
    for camera in spec.cameras:
        yield f"pictures of {camera.name} of", f"{size} x {size}", f"{camera.height} x {camera.width}"
        if spec.embodiment:  # else an older bundle, which does not declare how its pictures are turned
            yield f"pictures of {camera.name}", "rotated_180", camera.orientation
    yield "state", " ".join(STATE_NAMES), " ".join(spec.state.names)
    yield "actions", " ".join(ACTION_NAMES), " ".join(spec.action.vector.names)
    yield "control rate", CONTROL_HZ, spec.control_hz
    yield "memory frames", 1, spec.latent.num_memory_frames
