"""The preset `tiny-piper`: a real service plans with it, and its random chunks stay within the limits it declares."""

from __future__ import annotations

from collections.abc import AsyncIterator

import numpy as np
import pytest

from wavserve.app.service import Service, assemble
from wavserve.app.settings import Settings
from wavserve.bundle.bundle import Bundle
from wavserve.core.spec import LimitsSpec
from wavserve.core.types import Array, PlanRequest

READY = np.array((0.0, 1.0, -1.0, 0.0, 0.0, 0.0, 0.035) * 2, np.float32)
"""a pose away from the ends of the joints"""


@pytest.fixture
async def service(tiny_piper: Bundle) -> AsyncIterator[Service]:
    facts = {"bundle": {"path": str(tiny_piper.folder)}, "backend": {"kind": "local", "dtype": "float32"}}
    service = await assemble(Settings.model_validate(facts | {"log": {"level": "warning"}}))
    service.policy.skip_warm_up()
    yield service
    await service.close()


async def test_random_chunks_stay_within_the_declared_limits(service: Service) -> None:
    spec, draw = service.policy.spec, np.random.default_rng(0)
    for seed in range(8):
        images = {c.name: draw.integers(0, 256, (c.height, c.width, 3), np.uint8) for c in spec.cameras}
        state = READY + draw.normal(0, 0.1, 14).astype(np.float32) * (np.arange(14) % 7 < 6)
        request = PlanRequest(images=images, state=state, instruction="go", seed=seed, options={"mode": "off"})
        chunk = await service.policy.plan(request)
        assert chunk.actions.shape == (54, 14)
        assert 0 < np.abs(np.diff(chunk.actions, axis=0)).max() < 0.01
        assert_within(chunk.actions, state, spec.action.limits, 1 / spec.control_hz)


def assert_within(actions: Array, state: Array, limits: LimitsSpec, dt_s: float) -> None:
    path = np.vstack([state, state, state, actions]).astype(np.float64)  # the robot stands still before
    velocity, jerk = np.diff(path, axis=0) / dt_s, np.diff(path, n=3, axis=0) / dt_s**3
    for d in range(path.shape[1]):
        low, high = limits.position[d] or (-np.inf, np.inf)
        assert low <= actions[:, d].min() <= actions[:, d].max() <= high
        assert np.abs(velocity[:, d]).max() <= (limits.velocity[d] or np.inf)
        assert np.abs(jerk[:, d]).max() <= (limits.jerk[d] or np.inf)


def test_it_declares_two_piper_arms_and_no_training(tiny_piper: Bundle) -> None:
    spec = tiny_piper.spec
    assert (spec.embodiment, spec.untrained, spec.chunk, spec.control_hz) == ("piper_dual", True, 54, 30)
    assert [camera.name for camera in spec.cameras] == ["top", "left_wrist", "right_wrist"]
    assert (spec.state.dim, spec.action.vector.dim, spec.action.kind) == (14, 14, "delta")
    assert [spec.action.vector.names[d] for d in spec.action.absolute_dims] == ["left_gripper", "right_gripper"]
