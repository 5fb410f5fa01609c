"""Records one episode: settles, lets a policy act first where there is one, then the expert, and disturbs them.

A disturbance pushes the robot away; the label stays the expert's clean command for the state that is there. Knows the
environment, and neither files nor networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wavserve.core.errors import SimulationDiverged, SimulationError, SimulatorDied
from wavserve.core.libero import CAMERAS, STILL
from wavserve.core.resize import Pixels
from wavserve.core.simulation import Poses, PrivilegedEnvironment, Start, TaskInfo
from wavserve.training.demos.expert import Expert, Phase
from wavserve.training.demos.pictures import decoded, encoded
from wavserve.training.demos.protocol import RecordingConfig
from wavserve.training.demos.reward import Track, image_error, image_similarity, returns, reward_terms, weighted
from wavserve.training.demos.scene import Scene, Vector
from wavserve.training.episode import Episode, EpisodeInfo, Kind

_MOVING = {Phase.HOVER: 1.0, Phase.DESCEND: 0.6, Phase.CARRY: 1.0, Phase.LOWER: 0.6}
"""Phases in which the robot may be pushed, and the strength of the push. Others hold the object or leave it."""
_LIFTED_M = 0.02
"""An object that is higher than at the start by this is in the hand, so that no expert takes over."""


class Policy(Protocol):
    """Who acts first. It sees what serving sees."""

    def begin(self, instruction: str, seed: int) -> None:
        """Begins an episode."""
        ...

    def plan(self, pictures: Mapping[str, Pixels], state: NDArray[np.float32]) -> NDArray[np.floating]:
        """`[steps, 7]`: commands from here on. `pictures`: by camera. `state`: `[8]`."""
        ...


def record(
    environment: PrivilegedEnvironment,
    start: Start,
    number: int,
    goals: Mapping[str, Pixels],
    config: RecordingConfig,
    policy: Policy | None = None,
) -> Episode:
    """One episode. `goals`: goal pictures by camera.

    Raises SimulationError when the start offers the expert no grasp, and what the environment and the policy raise.
    """
    task = environment.reset(start)
    rng = np.random.default_rng([start.seed, number])
    settle(environment, int(rng.integers(config.settling_steps[0], config.settling_steps[1] + 1)))
    recording = _Recording(environment, task, rng, config, policy)
    if policy is not None:
        policy.begin(task.instruction, start.seed)
    recording.run()
    return recording.episode(task, start, number, goals)


def settle(environment: PrivilegedEnvironment, num_steps: int) -> None:
    """Stands still until what was dropped lies."""
    for _ in range(num_steps):
        environment.step(np.array(STILL))


class _Recording:
    def __init__(
        self,
        environment: PrivilegedEnvironment,
        task: TaskInfo,
        rng: np.random.Generator,
        config: RecordingConfig,
        policy: Policy | None,
    ) -> None:
        self._environment, self._config, self._policy, self._rng = environment, config, policy, rng
        self._layout = environment.layout()
        self._poses = [environment.poses()]
        self._max_steps = config.max_steps or task.max_steps
        self._takeover_step = self._max_steps if policy is None else self._drawn_takeover()
        self._expert = Expert(self._layout, self._poses[0]) if policy is None else None
        self._disturbed = policy is None and rng.uniform() < config.disturbances.share
        self._push_left, self._push = 0, np.zeros(3)
        self._planned: list[Vector] = []
        self._states: list[NDArray[np.float64]] = []
        self._labels: list[Vector] = []
        self._executed: list[Vector] = []
        self._by_expert: list[bool] = []
        self._solved: list[bool] = []
        self._jpegs: list[dict[str, bytes]] = []
        self._picture_steps: list[int] = []

    def _drawn_takeover(self) -> int:
        """The step from which the expert may take over."""
        rules, every = self._config.takeover, self._config.takeover.replan_steps
        if self._rng.uniform() < rules.alone:
            return self._max_steps
        if self._rng.uniform() < rules.early:
            first, last = (step // every for step in rules.early_steps)
            return int(self._rng.integers(first, last + 1)) * every
        return rules.late_step

    def run(self) -> None:
        """Until the task is solved and the tail played, the steps are used up, the simulation diverges, or the expert
        finds no grasp any more where a policy has led."""
        end = self._max_steps
        while len(self._labels) < end:
            try:
                self._step()
            except SimulationError as error:
                gave_up = self._policy is not None and not isinstance(error, SimulatorDied)
                if not (gave_up or isinstance(error, SimulationDiverged)):
                    raise
                self._drop_last()
                return
            if self._solved[-1] and end == self._max_steps and not any(self._solved[:-1]):
                end = len(self._labels) + self._config.tail_steps

    def _step(self) -> None:
        step = len(self._labels)
        if step % self._config.picture_every == 0:
            self._jpegs.append(encoded(self._environment.images(), self._config.size))
            self._picture_steps.append(step)
        self._states.append(self._environment.state())
        label, executed = self._commands(step)
        self._labels.append(label)
        self._executed.append(executed)
        self._by_expert.append(self._expert is not None)
        self._solved.append(self._environment.step(executed))
        self._poses.append(self._environment.poses())

    def _commands(self, step: int) -> tuple[Vector, Vector]:
        """The label and what is executed, both `[7]`, of float32 numbers."""
        if self._expert is None and self._may_take_over(step):
            with suppress(SimulationError):  # no grasp from here: the policy goes on
                self._expert = Expert(self._layout, self._poses[-1])
        if self._expert is None:
            command = self._policys_command(step)
            return command, command
        phase = self._expert.phase
        label = _as_float32(self._expert.act(self._poses[-1]))
        return label, _as_float32(self._pushed(label, phase))

    def _may_take_over(self, step: int) -> bool:
        heights = [Scene(self._layout, poses).object_position[2] for poses in (self._poses[0], self._poses[-1])]
        at_plan = step % self._config.takeover.replan_steps == 0
        is_lifted = heights[1] - heights[0] >= _LIFTED_M
        return at_plan and step >= self._takeover_step and not is_lifted and not any(self._solved)

    def _policys_command(self, step: int) -> Vector:
        assert self._policy is not None, "without a policy the expert acts from the first step"
        if step % self._config.takeover.replan_steps == 0:
            plan = self._policy.plan(decoded(self._jpegs[-1]), self._states[-1].astype(np.float32))
            self._planned = list(np.asarray(plan, np.float64)[: self._config.takeover.replan_steps])
        command = np.clip(self._planned.pop(0), -1.0, 1.0)
        command[6] = 1.0 if command[6] > 0 else -1.0
        return _as_float32(command)

    def _pushed(self, label: Vector, phase: Phase) -> Vector:
        """The command with noise, or with a push that lasts some steps."""
        rules, executed = self._config.disturbances, label.copy()
        if not self._disturbed or any(self._solved):
            return executed
        if self._push_left == 0 and phase in _MOVING and self._rng.uniform() < rules.push_probability:
            self._push_left = int(self._rng.integers(rules.push_steps[0], rules.push_steps[1] + 1))
            self._push = self._rng.normal(0.0, rules.push, 3) * [1.0, 1.0, 0.7] * _MOVING[phase]
        if self._push_left:
            self._push_left -= 1
            disturbance = self._push
        else:
            disturbance = self._rng.normal(0.0, rules.noise, 3)
        executed[:3] = np.clip(executed[:3] + disturbance, -1.0, 1.0)
        return executed

    def _drop_last(self) -> None:
        """Forgets a step that did not end."""
        for rows in (self._states, self._labels, self._executed, self._by_expert):
            del rows[len(self._solved) :]
        while self._picture_steps[-1] >= max(len(self._solved), 1):
            self._picture_steps.pop()
            self._jpegs.pop()

    def episode(self, task: TaskInfo, start: Start, number: int, goals: Mapping[str, Pixels]) -> Episode:
        if not self._solved:
            raise SimulationDiverged(f"{task.suite} task {task.index}: the simulation diverged at the first step")
        success = any(self._solved)
        info = EpisodeInfo(
            suite=task.suite,
            task=task.index,
            instruction=task.instruction,
            number=number,
            seed=start.seed,
            kind=self._kind(success),
            success=success,
            num_steps=len(self._solved),
        )
        track = self._track(goals)
        terms = reward_terms(track)
        reward = weighted(terms)
        return Episode(
            info=info,
            state=np.array(self._states, np.float32),
            action=np.array(self._labels, np.float32),
            executed_action=track.executed_action,
            is_expert=np.array(self._by_expert),
            privileged=np.concatenate([track.object, track.goal], axis=1)[:-1].astype(np.float32),
            solved=track.solved,
            reward_terms=terms,
            reward=reward,
            returns=returns(reward),
            picture_steps=track.picture_steps,
            pictures={camera: tuple(jpegs[camera] for jpegs in self._jpegs) for camera in CAMERAS},
        )

    def _kind(self, success: bool) -> Kind:
        if not success:
            return "failure"
        if self._policy is None:
            return "expert"
        return "policy" if self._expert is None else "recovery"

    def _track(self, goals: Mapping[str, Pixels]) -> Track:
        poses: list[Poses] = self._poses[: len(self._solved) + 1]
        shown = [decoded(jpegs) for jpegs in self._jpegs]
        views = [[pictures[camera] for camera in CAMERAS] for pictures in shown]
        goal_views = [goals[camera] for camera in CAMERAS]
        return Track(
            hand=np.array([each.hand for each in poses]),
            object=np.array([Scene(self._layout, each).object_position for each in poses]),
            goal=np.array([each.goal for each in poses]),
            executed_action=np.array(self._executed, np.float32),
            solved=np.array(self._solved),
            picture_steps=np.array(self._picture_steps),
            image_errors=np.array([image_error(view, goal_views) for view in views]),
            image_similarities=np.array([image_similarity(view, goal_views) for view in views]),
        )


def _as_float32(command: Vector) -> Vector:
    """What a data set keeps of a command, so that an episode can be played again from it."""
    return command.astype(np.float32).astype(np.float64)
