"""What the tests of the LeRobot plugin share: the facts of a policy, and what an environment shows of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from lerobot_policy_wavserve.contract import IMAGES_PREFIX, Assumed
from lerobot_policy_wavserve.sessions import Seen
from tests.edge.fakes import CHUNK, RecordingPolicy, example_limits, example_pixels
from wavserve.core.messages import PolicyInfo
from wavserve.edge.frontend import Frontend

POLICY: PolicyInfo = Frontend(RecordingPolicy(), example_limits()).info()
KEYS = tuple(IMAGES_PREFIX + camera.name for camera in POLICY.cameras)
STATE = tuple(0.125 * index for index in range(len(POLICY.state.names)))


def assumed(**changes: Any) -> Assumed:
    """What fits `POLICY`."""
    fits = Assumed(image_keys=KEYS, state_dim=len(STATE), n_action_steps=CHUNK, allow_untrained=True)
    return replace(fits, **changes)


def seen(index: int = 0) -> Seen:
    """What environment `index` shows."""
    images = {camera.name: example_pixels(seed=index) for camera in POLICY.cameras}
    return Seen(images=images, state=(*STATE[:-1], float(index)), instruction=f"task {index}")


def rows(first: float, num_steps: int = 4) -> np.ndarray:
    """`[num_steps, A]` of which no two are equal."""
    actions = first + 0.01 * np.arange(num_steps)[:, None]
    return np.repeat(actions, len(POLICY.action.names), axis=1).astype(np.float32)
