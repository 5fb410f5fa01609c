"""The FLOP formulas against torch's counter, and their results for the 2.3 B model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.models.fast.paths import plan_fast
from wavserve.core.spec import ExpertConfig, LatentSpec, ModelConfig, PlannerConfig, VideoConfig
from wavserve.models import flops
from wavserve.models.flops import Workload
from wavserve.models.networks.plain import Draws, Plain, Scene, plain_plan
from wavserve.models.weights.weights import Models


@pytest.fixture(scope="module")
def few(odd: Workload) -> Workload:
    planner = replace(odd.planner, num_iterations=1, num_video_samples=2, num_flow_steps=2)
    return replace(odd, planner=replace(planner, video_elite_fraction=1.0, value_elite_fraction=1.0))


@pytest.fixture(scope="module")
def few_draws(few: Workload, draws: Draws) -> Draws:
    num_rows = few.planner.num_video_samples * few.planner.num_value_samples
    return replace(draws, video=draws.video[:, : few.planner.num_video_samples], value=draws.value[:, :num_rows])


def test_the_plain_formula_agrees_with_torchs_counter(
    few: Workload, plain: Plain, scene: Scene, few_draws: Draws
) -> None:
    counted = flops.counted(lambda: plain_plan(plain, scene, few_draws, few.planner))

    assert flops.plain(few).plan == pytest.approx(counted, rel=0.02)


def test_the_fast_formula_agrees_with_torchs_counter(
    few: Workload, models: Models, scene: Scene, few_draws: Draws
) -> None:
    counted = flops.counted(lambda: plan_fast(few, models, scene, few_draws))

    assert flops.fast(few).plan == pytest.approx(counted, rel=0.02)


def test_each_further_video_step_costs_a_whole_forward(odd: Workload) -> None:
    slow = replace(odd, planner=replace(odd.planner, num_video_steps=3))

    assert flops.fast(slow).imagine == 3 * flops.fast(odd).imagine


def test_flops_of_a_libero_plan_of_the_large_model() -> None:
    config = ModelConfig(
        VideoConfig(128, 128, num_layers=28, num_heads=32, head_dim=64, caption_channels=4096),
        value=ExpertConfig(10, 10, num_heads=16, head_dim=32, rope_base=57),
        action=ExpertConfig(15, 15, num_heads=16, head_dim=32, rope_base=54),
    )
    work = Workload(config, LatentSpec(4, 2, 8, 8), PlannerConfig(), 2, chunk=36, num_prompt=20, num_padded=128)

    assert flops.plain(work).plan == pytest.approx(1162e12, rel=0.005)
    assert flops.fast(work).plan == pytest.approx(478e12, rel=0.005)
