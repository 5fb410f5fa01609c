"""The clocks of an episode, without an episode: when a reply arrives, and how the wall clock keeps its pace."""

from __future__ import annotations

import numpy as np
import pytest

from wavserve.clients.libero.clocks import ClockConfig, VirtualClock, WallClock, num_steps_of
from wavserve.clients.libero.draws import Draws
from wavserve.core.simulation import Start

DRAWS = Draws(0, Start("suite", 1, 2, seed=0))


@pytest.mark.parametrize(
    ("latency_ms", "num_steps"), [(0.0, 0), (0.1, 1), (50.0, 1), (50.1, 2), (100.0, 2), (300.0, 6), (1000.0, 20)]
)
def test_a_latency_is_rounded_up_to_control_steps(latency_ms: float, num_steps: int) -> None:
    assert num_steps_of(latency_ms, 0.05) == num_steps


def test_draws_depend_on_seed_task_state_and_step_alone() -> None:
    fates = {
        Draws(seed, Start(suite, task, state, seed=env)).fate(step, 100.0, 20.0, 0.5).latency_ms
        for seed in (0, 1)
        for suite in ("a", "b")
        for task in (0, 1)
        for state in (0, 1)
        for step in (0, 1)
        for env in (0, 9)
    }
    assert len(fates) == 2**5
    assert DRAWS.plan_seed(3) == DRAWS.plan_seed(3) != DRAWS.plan_seed(4)


def test_draws_have_the_mean_the_deviation_and_the_loss_that_are_asked_for() -> None:
    fates = [DRAWS.fate(step, 100.0, 20.0, 0.1) for step in range(4000)]
    latencies = np.array([fate.latency_ms for fate in fates])
    assert latencies.mean() == pytest.approx(100.0, abs=1.5)
    assert latencies.std() == pytest.approx(20.0, abs=1.5)
    assert np.mean([fate.lost for fate in fates]) == pytest.approx(0.1, abs=0.02)
    assert min(DRAWS.fate(step, 0.0, 20.0, 0.0).latency_ms for step in range(100)) == 0.0


def test_more_latency_changes_nothing_else() -> None:
    """The same deviation and the same chance of loss for each latency: a curve over latencies is paired."""
    short, long = (DRAWS.fate(5, latency_ms, 20.0, 0.3) for latency_ms in (100.0, 300.0))
    assert long.latency_ms - short.latency_ms == pytest.approx(200.0)
    assert long.lost == short.lost


def test_the_virtual_clock_never_waits() -> None:
    clock = VirtualClock(ClockConfig("virtual", 100.0), DRAWS, 0.05)
    assert clock.reply(0) is None
    clock.ask(3, lambda: None, lambda _: "chunk")  # type: ignore[arg-type, return-value]
    assert clock.reply(3) is None
    assert clock.reply(4) is None
    reply = clock.reply(5)
    assert reply is not None
    assert (reply.chunk, reply.latency_ms) == ("chunk", 100.0)
    assert clock.reply(6) is None


def test_the_wall_clock_keeps_its_pace_and_never_hurries() -> None:
    times, slept = iter([10.0, 10.02, 10.07, 10.5, 10.52]), list[float]()
    clock = WallClock(0.05, now=lambda: next(times), sleep=slept.append)
    for _ in range(4):
        clock.tick()
    assert slept == pytest.approx([0.03, 0.03, 0.0, 0.03])
    clock.close()
