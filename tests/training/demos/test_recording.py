"""Recording: what is labelled, what is executed, when pictures are taken, and who acts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.training.fake_scene import SUITE, TASKS, FakeScene
from wavserve.core.errors import InvalidRequest, SimulationDiverged, SimulationError, SimulatorDied
from wavserve.core.resize import Pixels
from wavserve.core.simulation import Layout, Poses, Start, Variation
from wavserve.training.dataset import picture
from wavserve.training.demos.expert import Expert
from wavserve.training.demos.pictures import encoded
from wavserve.training.demos.protocol import Disturbances, RecordingConfig, Takeover
from wavserve.training.demos.recording import Policy, record
from wavserve.training.demos.reference import goal_pictures
from wavserve.training.demos.starts import reference_start
from wavserve.training.episode import Episode

CLEAN = RecordingConfig(size=32, disturbances=Disturbances(share=0.0))
DISTURBED = replace(CLEAN, disturbances=Disturbances(share=1.0, push_probability=0.1))


def start(seed: int = 0) -> Start:
    return Start(SUITE, 0, seed % 4, seed, Variation(seed))


def recorded(
    config: RecordingConfig = CLEAN, seed: int = 0, policy: Policy | None = None, scene: FakeScene | None = None
) -> Episode:
    scene = scene or FakeScene()
    return record(scene, start(seed), 0, goal_pictures(FakeScene(), TASKS[0], 0, config), config, policy)


def test_an_experts_episode_ends_a_few_steps_after_its_success() -> None:
    episode = recorded()
    solved_at = int(np.argmax(episode.solved))
    assert (episode.info.kind, episode.info.success) == ("expert", True)
    assert episode.info.num_steps == solved_at + 1 + CLEAN.tail_steps
    assert episode.is_expert.all()
    assert np.array_equal(episode.action, episode.executed_action)
    assert episode.state.shape == (episode.info.num_steps, 8)


def test_pictures_are_rendered_every_few_steps_only_and_are_what_a_robot_sends() -> None:
    scene = FakeScene()
    goals = goal_pictures(FakeScene(), TASKS[0], 0, CLEAN)
    episode = record(scene, start(), 0, goals, CLEAN)
    assert scene.num_renders == len(episode.picture_steps) == -(-episode.info.num_steps // 4)
    assert episode.picture_steps.tolist() == list(range(0, episode.info.num_steps, 4))
    again = FakeScene()
    again.reset(start())
    settled = int(np.random.default_rng([0, 0]).integers(6, 14))
    for _ in range(settled):
        again.step(np.array([0.0] * 6 + [-1.0]))
    captured = again.images()
    assert {camera: jpegs[0] for camera, jpegs in episode.pictures.items()} == encoded(captured, 32)
    turned = captured["agentview"][::-1, ::-1].astype(int)
    assert np.abs(picture(episode.pictures["agentview"][0]) - turned).mean() < 5


class Unwieldy(FakeScene):
    """At the first starts the box is too large for the hand."""

    def __init__(self, num_starts: int) -> None:
        super().__init__()
        self._num_starts = num_starts

    def layout(self) -> Layout:
        layout = super().layout()
        if len(self.starts) <= self._num_starts:
            layout.boxes[0, 1] = 0.3
        return layout


def test_goal_pictures_are_of_the_first_reference_start_with_a_grasp() -> None:
    scene = Unwieldy(2)
    assert set(goal_pictures(scene, TASKS[0], 0, CLEAN)) == {"agentview", "wrist"}
    assert scene.starts == [reference_start(TASKS[0], 0, attempt) for attempt in range(3)]
    with pytest.raises(SimulationError, match="the expert solves it from none of 5 starts"):
        goal_pictures(Unwieldy(5), TASKS[0], 0, CLEAN)
    with pytest.raises(SimulatorDied):
        goal_pictures(FakeScene(dies_at=20), TASKS[0], 0, CLEAN)


def test_a_larger_picture_is_resized_as_the_server_does() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    small = picture(encoded({"wrist": pixels}, 32)["wrist"])
    means = pixels[::-1, ::-1].reshape(32, 2, 32, 2, 3).mean((1, 3))
    assert small.shape == (32, 32, 3)
    assert np.abs(small - means).mean() < 8


def test_the_label_of_a_disturbed_step_is_the_experts_command_for_the_state_that_is_there() -> None:
    episode = recorded(DISTURBED)
    pushed = episode.disturbance() > 0.25
    assert 0 < pushed.sum() < len(pushed) / 2
    assert episode.info.success
    assert (episode.disturbance() > 0).mean() > 0.5, "small noise nearly everywhere"
    first_pushed = int(np.argmax(pushed))
    same = recorded(CLEAN)
    assert np.array_equal(episode.state[0], same.state[0])
    assert np.array_equal(episode.action[0], same.action[0])
    after = episode.state[first_pushed + 1, :3] - episode.state[first_pushed, :3]
    moved = np.clip(episode.executed_action[first_pushed, :3], -1, 1) * 0.012
    assert np.allclose(after, moved, atol=1e-6), "the robot does what is executed"


def test_nobody_is_pushed_while_the_hand_closes_or_opens() -> None:
    for seed in range(4):
        episode = recorded(DISTURBED, seed)
        changes = np.flatnonzero(np.diff(episode.action[:, 6])) + 1
        closing = np.concatenate([np.arange(at, at + 10) for at in changes[:1]])
        assert (episode.disturbance()[closing[1:9]] < 0.25).all()


def test_a_start_and_a_number_fix_an_episode() -> None:
    one, other = recorded(DISTURBED, 5), recorded(DISTURBED, 5)
    assert one.pictures == other.pictures
    assert all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("action", "executed_action"))
    assert not np.array_equal(one.executed_action[:20], recorded(DISTURBED, 6).executed_action[:20])


class Drift:
    """A policy that drifts away, with a command beyond the range and a gripper between open and closed."""

    def __init__(self, move: float = 1.5) -> None:
        self.move = move
        self.begun: list[tuple[str, int]] = []
        self.seen: list[dict[str, Pixels]] = []

    def begin(self, instruction: str, seed: int) -> None:
        self.begun.append((instruction, seed))

    def plan(self, pictures: Mapping[str, Pixels], state: NDArray[np.float32]) -> NDArray[np.float64]:
        assert state.shape == (8,)
        self.seen.append(dict(pictures))
        return np.tile([self.move, 0.0, 0.0, 0.0, 0.0, 0.0, -0.3], (16, 1))


def test_an_expert_recovers_where_a_policy_has_led() -> None:
    policy = Drift(0.4)
    config = replace(CLEAN, takeover=Takeover(alone=0.0, early=1.0, early_steps=(24, 24)))
    episode = recorded(config, policy=policy)
    assert policy.begun == [("pick up the red box", 0)]
    assert len(policy.seen) == 6, "a plan every 4 steps"
    assert np.array_equal(policy.seen[1]["wrist"], picture(episode.pictures["wrist"][1]))
    assert not episode.is_expert[:24].any()
    assert episode.is_expert[24:].all()
    assert (episode.action[:24] == np.float32([0.4, 0, 0, 0, 0, 0, -1])).all()
    assert (episode.info.kind, episode.info.success) == ("recovery", True)


def test_a_policy_that_fails_alone_is_a_failure_with_all_its_steps() -> None:
    policy = Drift()
    episode = recorded(replace(CLEAN, takeover=Takeover(alone=1.0), max_steps=50), policy=policy)
    assert (episode.info.kind, episode.info.success, episode.info.num_steps) == ("failure", False, 50)
    assert not episode.is_expert.any()
    assert episode.action[:, 0].max() == 1.0, "clipped"


class Solver(Drift):
    """A policy that knows the scene: it does what the expert does."""

    def __init__(self, scene: FakeScene) -> None:
        super().__init__()
        self.scene = scene
        self.expert: Expert | None = None

    def plan(self, pictures: Mapping[str, Pixels], state: NDArray[np.float32]) -> NDArray[np.float64]:
        self.expert = self.expert or Expert(self.scene.layout(), self.scene.poses())
        return np.tile(self.expert.act(self.scene.poses()), (16, 1))


def solved_by_policy(takeover: Takeover) -> Episode:
    scene = FakeScene()
    return recorded(replace(CLEAN, takeover=takeover, max_steps=600), policy=Solver(scene), scene=scene)


def test_nobody_takes_over_from_a_policy_that_has_solved_the_task() -> None:
    alone = solved_by_policy(Takeover(alone=1.0))
    assert alone.info.kind == "policy"
    held = int(np.argmax(alone.solved)) // 4 * 4 - 8
    watched = solved_by_policy(Takeover(alone=0.0, early=1.0, early_steps=(held, held)))
    assert (watched.info, watched.is_expert.any()) == (alone.info, np.False_)


class Huge(FakeScene):
    """Its box does not fit between the fingers."""

    def _boxes(self) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        first, *others = super()._boxes()
        return [(first[0], np.array([0.06, 0.06, 0.04])), *others]


def test_a_policy_goes_on_where_the_expert_finds_no_grasp() -> None:
    """The episode is a failure. Another start instead of it would hide where the policy fails."""
    config = replace(CLEAN, takeover=Takeover(alone=0.0, early=1.0, early_steps=(24, 24)), max_steps=60)
    episode = recorded(config, policy=Drift(0.4), scene=Huge())
    assert (episode.info.kind, episode.info.num_steps) == ("failure", 60)
    assert not episode.is_expert.any()


class Growing(FakeScene):
    """Its box is lost, and then does not fit between the fingers any more."""

    def poses(self) -> Poses:
        poses = super().poses()
        if self.slips_at is not None and self.num_steps >= self.slips_at:
            poses.shape_rotations[0] *= 3.0
        return poses


def test_an_episode_that_the_expert_gives_up_is_a_failure_where_a_policy_acted() -> None:
    takeover = Takeover(alone=0.0, early=1.0, early_steps=(24, 24))
    config = replace(CLEAN, takeover=takeover)
    solved = recorded(config, policy=Drift(0.4))
    given_up = recorded(config, policy=Drift(0.4), scene=Growing(slips_at=int(np.argmax(solved.solved)) - 20))
    assert (given_up.info.kind, given_up.info.success) == ("failure", False)
    assert 24 < given_up.info.num_steps == len(given_up.action) < solved.info.num_steps
    assert given_up.is_expert[24:].all()
    with pytest.raises(SimulationError, match="no grasp of box fits the hand"):  # the expert alone: another start
        recorded(scene=Growing(slips_at=int(np.argmax(recorded().solved)) - 20))


def test_a_failure_is_kept_and_so_is_a_run_that_diverges() -> None:
    late = recorded(replace(CLEAN, max_steps=30))
    assert (late.info.kind, late.info.num_steps, late.info.success) == ("failure", 30, False)
    broken = recorded(scene=FakeScene(diverges_at=40))
    assert broken.info.kind == "failure"
    assert broken.info.num_steps == len(broken.action) == len(broken.reward) < 40
    assert broken.picture_steps[-1] < broken.info.num_steps
    assert len(broken.pictures["wrist"]) == len(broken.picture_steps)
    with pytest.raises(SimulationDiverged):
        recorded(scene=FakeScene(diverges_at=0))


def test_plans_are_made_where_pictures_are() -> None:
    with pytest.raises(InvalidRequest, match="replan_steps: expected a multiple of picture_every, 4, got 6"):
        RecordingConfig(takeover=Takeover(replan_steps=6))
