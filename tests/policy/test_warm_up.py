"""Every bundle that passes the bundle's checks warms up and plans, whatever its bounds and sizes are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.clock import yield_to_loop
from tests.examples import example_vector
from tests.planning.rig import MakeRig, RigOptions, example_request, example_spec
from tests.scheduling.test_batcher_stuck import judge
from wavserve.bundle.checks import check_spec
from wavserve.core.errors import ArenaFull, BundleError
from wavserve.core.spec import ActionSpec, NormSpec, PlannerConfig, PolicySpec, RtcSpec
from wavserve.models.arena.book import ArenaRole

Change = Callable[[PolicySpec], PolicySpec]


def bounds(**limits: int) -> Change:
    return lambda spec: replace(spec, bounds=replace(spec.bounds, **limits))


def defaults(**options: Any) -> Change:
    return lambda spec: replace(spec, planner=replace(spec.planner, **options))


def own(**entries: Any) -> Change:
    return lambda spec: replace(spec, **entries)


def without_planning(spec: PolicySpec) -> PolicySpec:
    return bounds(max_iterations=0)(defaults(num_iterations=0)(spec))


def one_camera(spec: PolicySpec) -> PolicySpec:
    return replace(spec, cameras=spec.cameras[:1])


def one_number_of_state_and_action(spec: PolicySpec) -> PolicySpec:
    action = replace(spec.model.action, in_channels=2, out_channels=2)
    model = replace(spec.model, action=action)
    return replace(spec, state=example_vector(1), action=ActionSpec(example_vector(1)), model=model)


def constant_state(spec: PolicySpec) -> PolicySpec:
    """Statistics of a state that never changed, far from 0."""
    norm = NormSpec("meanstd", (1e33,) * 3, (0.0,) * 3)
    return replace(spec, state=replace(spec.state, norm=norm))


def smallest_latent(spec: PolicySpec) -> PolicySpec:
    latent = replace(spec.latent, num_memory_frames=1, num_future_frames=1, height=1, width=1, spatial_ratio=8)
    return replace(spec, latent=latent)


EDGES: dict[str, Change] = {
    "as it is": lambda spec: spec,
    "no iterations": without_planning,
    "no iterations, mode off": lambda spec: defaults(mode="off")(bounds(max_iterations=0)(spec)),
    "no iterations by default": defaults(num_iterations=0),
    "one iteration": lambda spec: bounds(max_iterations=1)(defaults(num_iterations=1)(spec)),
    "one video sample": lambda spec: bounds(max_video_samples=1)(defaults(num_iterations=0, num_video_samples=1)(spec)),
    "one video sample by default": defaults(num_iterations=0, num_video_samples=1),
    "two video samples": lambda spec: bounds(max_video_samples=2)(
        defaults(num_video_samples=2, video_elite_fraction=1.0, value_elite_fraction=1.0)(spec)
    ),
    "one value sample": lambda spec: bounds(max_value_samples=1)(
        defaults(num_value_samples=1, value_elite_fraction=1.0)(spec)
    ),
    "one step of each": lambda spec: bounds(max_flow_steps=1, max_video_steps=1)(defaults(num_flow_steps=1)(spec)),
    "no imagined frames": bounds(max_imagined_chunks=0),
    "random scores": defaults(mode="random_scores"),
    "fixed shrink": defaults(mode="fixed_shrink"),
    "published": defaults(mode="published"),
    "off": defaults(mode="off"),
    "every option": defaults(per_view_noise=True, estimate_value=True, warm_start=True, early_stop=1.0),
    "no elites": defaults(num_iterations=0, video_elite_fraction=0.0, value_elite_fraction=0.0),
    "one camera": one_camera,
    "one number of state and action": one_number_of_state_and_action,
    "constant state": constant_state,
    "smallest latent": smallest_latent,
    "shortest prompt": own(max_prompt_tokens=1, max_instruction_bytes=1),
    "shortest chunk": own(chunk=1, value_chunk=2, rtc=RtcSpec(execution_horizon=1)),
    "two value tokens": own(value_chunk=2),
}


@pytest.mark.parametrize("slots", [64, 1])
@pytest.mark.parametrize("edge", EDGES)
async def test_a_legal_bundle_warms_up_and_plans(make_rig: MakeRig, edge: str, slots: int) -> None:
    spec = EDGES[edge](example_spec())
    check_spec(spec)
    rig = await make_rig(RigOptions(spec=spec, ready=False, slots=slots, slice_size=min(3, slots)))
    await rig.policy.warm_up()
    assert rig.policy.ready
    state = np.full(spec.state.dim, spec.state.norm.low[0], np.float32)
    chunk = await rig.policy.plan(example_request(spec, instruction="a", state=state))
    assert chunk.actions.shape == (spec.chunk, spec.action.vector.dim)


@pytest.mark.parametrize("default", [PlannerConfig(mode="off"), PlannerConfig(num_iterations=0, num_video_samples=1)])
async def test_the_warm_up_calls_every_verb_that_a_request_may_ask_for(
    make_rig: MakeRig, default: PlannerConfig
) -> None:
    """Also when plans have no iterations by default: a request may ask for some."""
    spec = replace(example_spec(), planner=default)
    rig = await make_rig(RigOptions(spec=spec, ready=False))
    await rig.policy.warm_up()
    assert {verb for verb, _, _ in rig.backend.calls} >= {"imagine", "score", "value_features", "decode"}


@pytest.mark.parametrize("change", [own(value_chunk=1), own(chunk=1)])
def test_a_single_value_token_is_refused(change: Change) -> None:
    """A signal-to-noise ratio over one token is not a number."""
    with pytest.raises(BundleError, match=r"value_chunk: expected at least 2"):
        check_spec(change(example_spec()))


async def test_a_warm_up_on_an_arena_whose_slots_nobody_frees_ends_with_an_error(make_rig: MakeRig) -> None:
    rig = await make_rig(RigOptions(slots=3, ready=False, max_arena_wait_s=30.0))
    lost = rig.backend.book.allocate(3)
    rig.backend.book.publish(lost)  # by a gateway that has died
    warming = asyncio.create_task(rig.policy.warm_up())
    async with asyncio.timeout(10):
        while [verb for verb, _, _ in rig.backend.calls].count("imagine") < 3:
            await yield_to_loop()
        judge(rig.batcher, 31)
        with pytest.raises(ArenaFull):
            await warming
    rig.backend.book.release(lost, ArenaRole.VIDEO)
    await rig.policy.warm_up()
    assert rig.policy.ready
