"""An episode: the literature's protocol in lockstep, and what a latency, a loss and a late answer change."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.clients.libero.sources import GoalSource, assert_same
from tests.simulation.fake import FakeEnvironment, starts_of
from wavserve.clients.libero.clocks import ClockConfig
from wavserve.clients.libero.contract import HOLD
from wavserve.clients.libero.episode import EpisodeConfig, EpisodeResult, run_episode
from wavserve.clients.libero.plan_source import EpisodePlan
from wavserve.core.errors import (
    ContractMismatch,
    InvalidAnswer,
    InvalidRequest,
    NotReady,
    Overloaded,
    SimulationDiverged,
    UnsafeChunk,
)
from wavserve.core.libero import STILL
from wavserve.core.messages import ActionChunk
from wavserve.core.simulation import Start

START = Start("fake_reach", 1, 2, seed=7)


class Recording(FakeEnvironment):
    """Keeps every action of the episode; those before the first picture settle the scene."""

    def __init__(self) -> None:
        super().__init__()
        self.actions: list[list[float]] = []
        self.rendered_after: list[int] = []
        """`step` calls before each rendering"""

    def step(self, action: Any) -> bool:
        self.actions.append(np.asarray(action).tolist())
        return super().step(action)

    def images(self) -> Any:
        self.rendered_after.append(len(self.actions))
        return super().images()


def virtual(latency_ms: float, **changes: Any) -> EpisodeConfig:
    clock = {name: changes.pop(name) for name in ("jitter_ms", "loss") if name in changes}
    return EpisodeConfig(clock=ClockConfig("virtual", latency_ms, **clock), num_steps_wait=2, **changes)


class Open(GoalSource):
    """Never closes the gripper, so it never solves the task."""

    def plan(self, request: EpisodePlan) -> ActionChunk:
        chunk = super().plan(request)
        chunk.actions[:, 6] = -1.0
        return chunk


def run(
    config: EpisodeConfig, horizon: int = 16, start: Start = START, policy: type[GoalSource] = GoalSource
) -> tuple[EpisodeResult, Recording, GoalSource]:
    environment = Recording()
    source = policy(environment, horizon)
    return run_episode(environment, source, start, config), environment, source


def test_lockstep_settles_then_executes_a_part_of_each_chunk() -> None:
    result, environment, source = run(EpisodeConfig(replan_steps=4, num_steps_wait=3))
    assert result.success
    assert environment.actions[:3] == [list(STILL)] * 3
    assert len(environment.actions) == 3 + result.num_steps
    assert environment.rendered_after == [3 + step for step in range(0, result.num_steps, 4)]
    assert [each.control_step for each in source.requests] == list(range(0, result.num_steps, 4))
    assert [each.executed_steps for each in source.requests] == [0, *[4] * (result.num_plans - 1)]
    sent = [row.tolist() for chunk in result.chunks for row in chunk.actions[:4].astype(np.float64)]
    assert environment.actions[3:] == sent[: result.num_steps]
    assert source.instructions == ["reach the point b"]
    assert (result.num_holds, result.num_late, result.num_lost) == (0, 0, 0)
    assert result.plan_latencies_ms == (0.0,) * result.num_plans
    assert len(result.seam_jumps) == result.num_plans - 1
    assert [step for step, _ in result.values] == [each.control_step for each in source.requests]
    assert result.sim_states.shape == (result.num_steps + 1, 5)
    assert result.sim_states[0, 0] == 3
    assert np.array_equal(result.sim_states[-1], environment.sim_state())


@pytest.mark.parametrize("start", starts_of("fake_reach")[::4], ids=str)
def test_every_start_is_solved_in_lockstep(start: Start) -> None:
    assert run(EpisodeConfig(), start=start)[0].success


def test_a_blind_policy_sees_grey_pictures_that_are_rendered_once_and_the_same_state() -> None:
    config = EpisodeConfig(replan_steps=4, num_steps_wait=3)
    (_, environment, blind), (_, _, seeing) = run(replace(config, blind=True)), run(config)
    assert environment.rendered_after == [3]
    assert len(blind.requests) == len(seeing.requests) > 1
    for dark, bright in zip(blind.requests, seeing.requests, strict=True):
        assert [*dark.images] == [*bright.images]
        assert all((each == 128).all() for each in dark.images.values())
        assert [each.shape for each in dark.images.values()] == [each.shape for each in bright.images.values()]
        assert all(len(set(each.flat)) > 1 for each in bright.images.values())
        assert (dark.state == bright.state).all()


def test_the_limit_is_the_tasks_own_or_a_smaller_one() -> None:
    for max_steps, expected in ((None, 30), (5, 5)):
        environment = Recording()
        result = run_episode(environment, Open(environment), START, EpisodeConfig(max_steps=max_steps))
        assert (result.success, result.num_steps) == (False, expected)
        assert len(environment.actions) == 10 + expected


def test_a_short_chunk_is_followed_at_once() -> None:
    result, _, source = run(EpisodeConfig(replan_steps=8), horizon=3)
    assert [each.control_step for each in source.requests] == list(range(0, result.num_steps, 3))
    assert result.num_holds == 0


def test_without_latency_the_virtual_clock_is_lockstep() -> None:
    lockstep, environment, _ = run(EpisodeConfig(num_steps_wait=2))
    drawn, other, _ = run(virtual(0.0))
    assert environment.actions == other.actions
    assert lockstep.receipt_digests == drawn.receipt_digests


def test_while_a_plan_is_made_the_old_chunk_goes_on() -> None:
    """100 ms are two steps: each chunk after the first begins at its third action."""
    result, environment, source = run(virtual(100.0, replan_steps=4))
    first, second = result.chunks[:2]
    sent = environment.actions[2:]
    assert sent[:2] == [list(STILL)] * 2, "the robot stands still until the first chunk"
    assert sent[2:6] == first.actions[:4].tolist()
    assert sent[6:10] == second.actions[2:6].tolist()
    assert [each.control_step for each in source.requests[:3]] == [0, 4, 8]
    assert [each.executed_steps for each in source.requests[:3]] == [0, 2, 4]
    assert result.num_holds == 2
    assert result.plan_latencies_ms[:2] == (100.0, 100.0)


def test_a_robot_without_an_action_stands_still() -> None:
    """A chunk has 3 actions and takes 6 steps. The second one, asked for one action before the end, is too old then."""
    result, environment, _ = run(virtual(300.0, max_steps=24), horizon=3, policy=Open)
    still = [step for step, action in enumerate(environment.actions[2:]) if action == list(STILL)]
    assert still == [*range(6), *range(9, 20), 23]
    assert (result.num_holds, result.num_late) == (len(still), 1)


def test_a_chunk_that_comes_after_its_use_is_late() -> None:
    """Each plan takes 20 steps. The second one begins with the first chunk, whose 16 actions are executed meanwhile.

    The robot stands still when the third plan is asked for, so its chunk begins at its first action.
    """
    result, environment, source = run(virtual(1000.0, max_steps=90), policy=Open)
    assert [each.control_step for each in source.requests] == [0, 20, 40, 60, 80]
    assert (result.num_plans, result.num_late) == (4, 2)
    still = [step for step, action in enumerate(environment.actions[2:]) if action == list(STILL)]
    assert still == [*range(20), *range(36, 60), *range(76, 90)]
    assert result.num_holds == len(still)
    assert environment.actions[2 + 60] == result.chunks[2].actions[0].tolist()


def test_a_lost_plan_is_asked_for_again_when_its_answer_is_missing() -> None:
    result, environment, source = run(virtual(100.0, loss=1.0, max_steps=20))
    assert (result.num_plans, result.success, source.requests) == (0, False, [])
    assert result.num_lost == 10 - 1  # each takes two steps; the last one is under way
    assert environment.actions == [list(STILL)] * 22
    assert environment.num_renders == 0
    some = run(virtual(0.0, loss=0.4))[0]
    assert some.success
    assert some.num_lost > 0


def test_an_episode_is_the_same_whatever_ran_before_and_beside_it() -> None:
    config = virtual(120.0, jitter_ms=60.0, loss=0.2, seed=3)
    alone = {start: run(config, start=start)[0] for start in starts_of("fake_reach")[:4]}
    together: dict[Start, EpisodeResult] = {}

    def evaluate(starts: list[Start]) -> None:
        environment = FakeEnvironment()
        source = GoalSource(environment)
        for start in starts:
            together[start] = run_episode(environment, source, start, config)

    threads = [threading.Thread(target=evaluate, args=(list(alone)[i::2][::-1],)) for i in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for start, result in alone.items():
        assert_same(result, together[start])
    assert len({result.plan_latencies_ms[:3] for result in alone.values()}) == len(alone)


def test_another_seed_draws_other_latencies_and_plans() -> None:
    one, other = (run(virtual(100.0, jitter_ms=50.0, seed=seed))[0] for seed in (0, 1))
    assert one.plan_latencies_ms != other.plan_latencies_ms
    assert one.receipt_digests[0] != other.receipt_digests[0]


def test_real_time_chunking_continues_what_is_left() -> None:
    result, _, source = run(virtual(100.0, replan_steps=4, rtc_mode="rtc_guided"))
    first, second, third = source.requests[:3]
    assert first.rtc is None
    assert second.rtc is not None
    assert third.rtc is not None
    assert np.array_equal(second.rtc.prev_chunk_left_over, result.chunks[0].actions[2:])
    assert np.array_equal(third.rtc.prev_chunk_left_over, result.chunks[1].actions[4:])
    assert (third.rtc.mode, third.rtc.inference_delay) == ("rtc_guided", 2)


def test_the_delay_is_one_that_a_server_takes() -> None:
    """At most as many steps as were executed since the previous observation, and as are left."""
    for latency_ms in (100.0, 400.0, 700.0):
        _, _, source = run(virtual(latency_ms, replan_steps=3, rtc_mode="rtc_guided", max_steps=60))
        for request in source.requests:
            if request.rtc is not None:
                left, delay = len(request.rtc.prev_chunk_left_over), request.rtc.inference_delay
                assert delay <= min(left, request.executed_steps, 16 - request.executed_steps)


def test_an_error_of_the_source_ends_the_episode() -> None:
    def fail(request: EpisodePlan) -> None:
        if request.control_step:
            raise Overloaded("busy")

    environment = FakeEnvironment()
    for kind in ("lockstep", "wall"):
        config = EpisodeConfig(clock=ClockConfig(kind), max_steps=1000)
        with pytest.raises(Overloaded):
            run_episode(environment, Open(environment, on_plan=fail), START, config)


class Diverging(Recording):
    """The physics break at a control step, the settling ones counted, as in MuJoCo: then there is no state any more."""

    def __init__(self, at_step: int) -> None:
        super().__init__()
        self._at_step, self._broken = at_step, False

    def step(self, action: Any) -> bool:
        if len(self.actions) == self._at_step:
            self._broken = True
            raise SimulationDiverged("the simulation diverged")
        return super().step(action)

    def sim_state(self) -> Any:
        assert not self._broken
        return super().sim_state()


@pytest.mark.parametrize("kind", ["lockstep", "virtual", "wall"])
def test_an_episode_whose_commands_break_the_physics_has_failed(kind: Any) -> None:
    environment = Diverging(2 + 5)
    config = EpisodeConfig(clock=ClockConfig(kind), num_steps_wait=2)
    result = run_episode(environment, Open(environment), START, config)
    assert (result.success, result.num_steps, result.failure) == (False, 6, "the simulation diverged")
    assert len(result.sim_states) == 7


def test_a_scene_that_breaks_by_itself_is_an_error() -> None:
    environment = Diverging(1)
    with pytest.raises(SimulationDiverged, match="fake_reach task 1, state 2: the simulation diverged before"):
        run_episode(environment, GoalSource(environment), START, EpisodeConfig(num_steps_wait=2))


@pytest.mark.parametrize("kind", ["lockstep", "virtual"])
def test_a_plan_that_the_service_refuses_is_asked_for_again(kind: Any) -> None:
    """The session does not have the observation, so what was executed since the one before still counts."""
    asked: list[EpisodePlan] = []

    def refuse(request: EpisodePlan) -> None:
        asked.append(request)
        if len(asked) in (1, 3):
            raise UnsafeChunk("a plan breaks a limit")

    environment = FakeEnvironment()
    source = GoalSource(environment, on_plan=refuse)
    result = run_episode(environment, source, START, EpisodeConfig(replan_steps=4, clock=ClockConfig(kind)))
    assert result.success
    assert (result.num_unsafe, result.num_lost) == (2, 0)
    first, second, third, fourth = asked[:4]
    assert len({each.seed for each in asked}) == len(asked)
    assert (first.executed_steps, second.executed_steps) == (0, 0)
    assert (third.executed_steps, fourth.executed_steps) == (4, 5)
    assert [each.control_step for each in asked[:4]] == [0, 1, 5, 6]
    assert result.num_plans == len(source.requests)


def test_a_chunk_that_is_no_answer_to_the_episode_is_an_error() -> None:
    environment = FakeEnvironment()
    source = GoalSource(environment)
    source.changes = {"dt_ns": 33_333_333}
    with pytest.raises(InvalidAnswer, match="the player refuses it: rate"):
        run_episode(environment, source, START, EpisodeConfig())


def test_an_episode_goes_on_in_the_epoch_of_another_gateway() -> None:
    def move(request: EpisodePlan) -> None:
        source.changes = {"epoch": 1 if request.control_step < 8 else 2}

    environment = FakeEnvironment()
    source = GoalSource(environment, on_plan=move)
    result = run_episode(environment, source, START, EpisodeConfig(replan_steps=4))
    assert result.success
    assert result.num_late == result.num_holds == 0
    assert result.num_plans > 2


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"fresh_memory": True}, NotReady, "the service has forgotten the episode's earlier frames"),
        ({"session_id": "another"}, InvalidAnswer, "the player refuses it: other_session"),
    ],
)
def test_an_episode_whose_session_is_lost_ends(changes: Any, error: type[Exception], words: str) -> None:
    def lose(request: EpisodePlan) -> None:
        source.changes = changes if request.control_step else {"fresh_memory": True}

    environment = FakeEnvironment()
    source = GoalSource(environment, on_plan=lose)
    with pytest.raises(error, match=words):
        run_episode(environment, source, START, EpisodeConfig(replan_steps=4))


def test_a_policy_of_other_commands_is_refused_before_anything_moves() -> None:
    class Absolute(GoalSource):
        hold: Any = ("last",) * 7

        def policy(self) -> Any:
            return replace(super().policy(), action=replace(super().policy().action, hold=self.hold))

    environment = FakeEnvironment()
    with pytest.raises(ContractMismatch, match=r"action.hold: expected zero, .*, last, got last"):
        run_episode(environment, Absolute(environment), START, EpisodeConfig())
    assert environment.starts == []
    source = Absolute(environment)
    source.hold = ()
    assert run_episode(environment, source, START, EpisodeConfig()).success, "an old bundle declares nothing"
    assert HOLD[6] == "last"


def test_the_wall_clock_goes_on_while_a_plan_is_made() -> None:
    """The plan waits until the scene has moved on by two steps."""
    moved = threading.Event()

    def wait(request: EpisodePlan) -> None:
        if request.control_step:
            assert moved.wait(10)

    class Watched(Recording):
        def step(self, action: Any) -> bool:
            """The episode ends when the second chunk was there: then a third one is asked for."""
            super().step(action)
            if len(self.rendered_after) > 1 and len(self.actions) >= self.rendered_after[1] + 2:
                moved.set()
            return len(self.rendered_after) > 2

    environment = Watched()
    config = EpisodeConfig(clock=ClockConfig("wall"), replan_steps=4, num_steps_wait=0, max_steps=1000)
    result = run_episode(environment, GoalSource(environment, on_plan=wait), START, config)
    first, second = result.chunks[:2]
    asked, sent = second.control_step, environment.actions
    begin = next(i for i, action in enumerate(sent) if action == first.actions[0].tolist())
    assert sent[asked : asked + 2] == first.actions[asked - begin : asked - begin + 2].tolist()
    assert all(each > 0 for each in result.plan_latencies_ms)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"replan_steps": 0}, "replan_steps"),
        ({"num_steps_wait": -1}, "num_steps_wait"),
        ({"max_steps": 0}, "max_steps"),
        ({"seed": -1}, "seed"),
        ({"clock": ClockConfig("virtual", -1.0)}, "latency_ms"),
        ({"clock": ClockConfig("virtual", float("nan"))}, "latency_ms"),
        ({"clock": ClockConfig("virtual", 1.0, -1.0)}, "jitter_ms"),
        ({"clock": ClockConfig("virtual", 1.0, 1.0, 1.5)}, "loss"),
        ({"clock": ClockConfig("wall", 1.0)}, "latency_ms"),
        ({"clock": ClockConfig("lockstep", loss=0.1)}, "loss"),
        ({"clock": ClockConfig("sundial")}, "clock"),  # type: ignore[arg-type]
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(changes: dict[str, Any], field: str) -> None:
    environment = FakeEnvironment()
    with pytest.raises(InvalidRequest, match=f"^{field}: expected"):
        run_episode(environment, GoalSource(environment), START, EpisodeConfig(**changes))
    assert environment.starts == []
