"""The gate in the real service: a policy whose limits random actions break, over both edges, plan after plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.service.rig import Server, observation, post, start
from wavserve.clients.plan_client import PlanClient
from wavserve.core.errors import UnsafeChunk
from wavserve.core.messages import ActionChunk, Observation
from wavserve.core.spec import LimitsSpec
from wavserve.models.weights import presets

HZ = 20
MAX_VELOCITY = 60.0
"""Some steps of random weights break it, and most do not."""
MIN_HORIZON = 4
LIMITS = LimitsSpec(velocity=(MAX_VELOCITY,) * 7, min_horizon=MIN_HORIZON)


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service of `tiny` with limits."""
    folder: Path = tmp_path_factory.mktemp("limited")
    preset = presets.find("tiny")
    spec = replace(preset.spec, action=replace(preset.spec.action, limits=LIMITS))
    bundle = presets.make(replace(preset, spec=spec), folder / "bundle")
    running = start(folder, "local", "--bundle", str(bundle.folder))
    yield running
    assert running.stop() == 0


def velocities(actions: np.ndarray) -> np.ndarray:
    return np.abs(np.diff(actions.astype(np.float64), axis=0)) * HZ


def check(chunk: ActionChunk, committed: np.ndarray | None = None) -> None:
    """What left keeps the limit, also after the action that was committed before it; what was cut would not have."""
    path = chunk.actions if committed is None else np.concatenate([committed[None], chunk.actions])
    assert velocities(path).max(initial=0.0) <= MAX_VELOCITY * (1 + 1e-6)
    assert chunk.valid_until_step == chunk.first_control_step + len(chunk.actions)
    if chunk.cut is None:
        assert len(chunk.actions) == 16
    else:
        assert MIN_HORIZON <= chunk.cut.step == len(chunk.actions) < 16
        assert abs(chunk.cut.value) > MAX_VELOCITY == chunk.cut.bound


def test_whatever_a_random_policy_plans_no_robot_gets_a_step_beyond_the_limits(limited: Server) -> None:
    with PlanClient(limited.grpc) as client:
        kinds = {plan_on_both(client, limited, seed) for seed in range(8)}
    assert {"cut", "refused"} <= kinds
    metrics = httpx.get(f"{limited.http}/metrics").text
    assert 'wavserve_gated_plans_total{dimension="delta_' in metrics


def plan_on_both(client: PlanClient, server: Server, seed: int) -> str:
    """What became of a seed's plan, which is the same over both edges."""
    over_http = post(server, observation(seed=seed)).json()
    try:
        chunk = client.plan(observation(seed=seed))
    except UnsafeChunk as error:
        assert error.broken is not None  # noqa: PT017 - other seeds raise nothing
        assert error.broken.step < MIN_HORIZON  # noqa: PT017
        assert {name: over_http[name] for name in asdict(error.broken)} == asdict(error.broken)  # noqa: PT017
        return "refused"
    check(chunk)
    assert chunk.fresh_memory
    np.testing.assert_array_equal(np.array(over_http["actions"], np.float32), chunk.actions)
    assert over_http["cut"] == (None if chunk.cut is None else asdict(chunk.cut))
    return "whole" if chunk.cut is None else "cut"


def test_an_episode_goes_on_after_refusals_and_each_chunk_continues_the_one_before(limited: Server) -> None:
    with PlanClient(limited.grpc) as client:
        chunk = next(plans(client, observation(0), sequence=0))
        check(chunk)
        for sequence in (1, 2, 3):
            step = chunk.first_control_step + 3
            sent = observation(sequence, session_id=chunk.session_id, control_step=step, executed_steps=3)
            later = next(plans(client, sent, sequence))
            check(later, committed=chunk.actions[2])
            assert not later.fresh_memory
            chunk = later


def plans(client: PlanClient, sent: Observation, sequence: int) -> Iterator[ActionChunk]:
    """The plans that are not refused, seed by seed. A refused one leaves the sequence number free."""
    for seed in range(50):
        try:
            yield client.plan(replace(sent, sequence=sequence, seed=seed))
        except UnsafeChunk:
            continue
