"""Whether the value tells futures apart: plays several samples of one scene to their ends, and takes their returns.

A scene is a moment of an episode without planning. Its samples share everything before it and all seeds after it, so
they differ in the one plan that is made there. Knows no statistics.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from loadtest.study.plan import Scenes, Study
from wavserve.clients.libero.episode import EpisodeConfig, run_episode
from wavserve.clients.libero.plan_source import EpisodePlan, PlanSource
from wavserve.core.libero import CAMERAS
from wavserve.core.messages import ActionChunk, PolicyInfo
from wavserve.core.resize import Pixels
from wavserve.core.simulation import Environment, PrivilegedEnvironment, Start, TaskInfo
from wavserve.core.starts import shifted_seed, shifted_start
from wavserve.training.demos.pictures import decoded, encoded
from wavserve.training.demos.protocol import RecordingConfig
from wavserve.training.demos.reference import goal_pictures
from wavserve.training.demos.reward import Track, image_error, image_similarity, returns, reward_terms, weighted
from wavserve.training.demos.scene import Scene

MEAN = "mean"
SCORES = (MEAN, "paper")
"""modes whose score of a sample is taken: the mean of the value, and its SNR"""
Goals = Mapping[str, Pixels]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One sample of a scene, and what became of it."""

    scene: int
    number: int
    """of the sample; 0 has the seed that the episode has anyway"""
    task: int
    state_index: int
    at_step: int
    predicted: dict[str, float]
    """by mode: its score of the sample"""
    achieved: float
    """the return, as the data set has it of a recorded episode: the mean over the steps of the chunk that was planned,
    which is what its value predicts"""
    success: bool


class Seeded:
    """A source that asks for one plan with another seed."""

    def __init__(self, source: PlanSource, at_step: int, number: int) -> None:
        self._source, self._at_step, self._number = source, at_step, number

    def begin(self, instruction: str) -> None:
        """As `PlanSource.begin`."""
        self._source.begin(instruction)

    def plan(self, request: EpisodePlan) -> ActionChunk:
        """As `PlanSource.plan`."""
        if request.control_step == self._at_step and self._number:
            seed = int(np.random.SeedSequence([request.seed, self._number]).generate_state(1)[0])
            request = replace(request, seed=seed)
        return self._source.plan(request)

    def policy(self) -> PolicyInfo:
        """As `PlanSource.policy`."""
        return self._source.policy()

    def close(self) -> None:
        """As `PlanSource.close`."""
        self._source.close()


class Witness:
    """An environment that keeps what the return of its episode depends on. What it does not define is the other's."""

    def __init__(self, environment: PrivilegedEnvironment, tail_steps: int = 0) -> None:
        """`tail_steps`: how many steps an episode goes on after its success. The last reward counts for ever, so a
        return equals that of a recorded episode only with the tail of one."""
        self._environment, self._tail_steps = environment, tail_steps

    def __getattr__(self, name: str) -> Any:
        return getattr(self._environment, name)

    def reset(self, start: Start) -> TaskInfo:
        """As `Environment.reset`."""
        task = self._environment.reset(start)
        self._layout, self._poses = self._environment.layout(), [self._environment.poses()]
        self._actions: list[NDArray[np.float32]] = []
        self._solved: list[bool] = []
        self._shown: dict[int, dict[str, bytes]] = {}
        return task

    def step(self, action: NDArray[np.floating[Any]]) -> bool:
        """Whether the task was solved, and the tail is played."""
        solved = self._environment.step(action)
        self._actions.append(np.asarray(action, np.float32))
        self._solved.append(solved)
        self._poses.append(self._environment.poses())
        return self.solved_before(len(self._solved) - self._tail_steps)

    def solved_before(self, step: int) -> bool:
        """Whether the task was solved before a control step. The settling steps count."""
        return any(self._solved[: max(step, 0)])

    def images(self) -> dict[str, Pixels]:
        """As `Environment.images`."""
        captured = self._environment.images()
        self._shown[len(self._actions)] = encoded(captured, RecordingConfig().size)
        return captured

    def pictures(self, settling_steps: int) -> dict[int, dict[str, Pixels]]:
        """What the policy saw, by control step and camera."""
        return {step - settling_steps: decoded(jpegs) for step, jpegs in self._shown.items()}

    def returns(self, goals: Goals, settling_steps: int) -> NDArray[np.float32]:
        """`[T]`: the return at each control step after the settling ones."""
        poses, first = self._poses[settling_steps:], settling_steps
        shown = self.pictures(settling_steps)
        views = [[pictures[camera] for camera in CAMERAS] for pictures in shown.values()]
        targets = [goals[camera] for camera in CAMERAS]
        track = Track(
            hand=np.array([each.hand for each in poses]),
            object=np.array([Scene(self._layout, each).object_position for each in poses]),
            goal=np.array([each.goal for each in poses]),
            executed_action=np.array(self._actions[first:]),
            solved=np.array(self._solved[first:]),
            picture_steps=np.array(list(shown)),
            image_errors=np.array([image_error(view, targets) for view in views]),
            image_similarities=np.array([image_similarity(view, targets) for view in views]),
        )
        return returns(weighted(reward_terms(track)))


OpenSource = Callable[[Mapping[str, object]], PlanSource]
"""A source with these options of the planner."""


@dataclass(frozen=True, slots=True)
class Player:
    """Plays the samples of a study's scenes. Not for several threads at once."""

    study: Study
    environment: PrivilegedEnvironment
    horizon: int
    """T of the policy, steps"""
    open_source: OpenSource

    def play(self, file: Path, told: Callable[[str], None]) -> list[Sample]:
        """The samples of all scenes. Those that are in the file are not played again; a torn last line is dropped."""
        done = {(each.scene, each.number): each for each in read_samples(file)}
        tasks = self.environment.tasks(self.study.suite)
        chosen = [tasks[index] for index in self.study.tasks or range(len(tasks))]
        scenes = self.study.values
        with file.open("ab") as stream:
            for scene in range(scenes.num_scenes):
                missing = [number for number in range(scenes.num_samples) if (scene, number) not in done]
                for sample in self._scene(chosen[scene % len(chosen)], scene, missing):
                    stream.write(json.dumps(asdict(sample)).encode() + b"\n")
                    stream.flush()
                    os.fsync(stream.fileno())
                    done[scene, sample.number] = sample
                    told(f"scene {scene + 1}/{scenes.num_scenes}, sample {sample.number + 1}/{scenes.num_samples}")
        return [done[key] for key in sorted(done)]

    def _scene(self, task: TaskInfo, scene: int, numbers: Sequence[int]) -> Iterator[Sample]:
        if not numbers:
            return
        goals = goal_pictures(self.environment, task, 0, RecordingConfig())
        for number in numbers:
            yield self._sample(task, scene, number, goals)

    def _sample(self, task: TaskInfo, scene: int, number: int, goals: Goals) -> Sample:
        rules, num_tasks = self.study.values, len(self.study.tasks) or len(self.environment.tasks(task.suite))
        lap, place = divmod(scene, num_tasks)
        state_index = lap % task.num_states
        # a task is looked at at another step in each lap, also where the numbers of tasks and of steps share a factor
        start, at_step = start_of(rules, task, state_index), rules.at_steps[(lap + place) % len(rules.at_steps)]
        witness = Witness(self.environment, RecordingConfig().tail_steps)
        predicted: dict[str, float] = {}
        for mode in SCORES:  # the last one is played to its end; both have the same plans
            config = self._config(start.seed, None if mode == SCORES[-1] else at_step + 1)
            with closing(Seeded(self.open_source(estimating(mode)), at_step, number)) as source:
                result = run_episode(cast(Environment, witness), source, start, config)
            values = dict(result.values)
            if at_step not in values or witness.solved_before(at_step + config.num_steps_wait):
                break
            predicted[mode] = values[at_step]
        return Sample(
            scene=scene,
            number=number,
            task=task.index,
            state_index=state_index,
            at_step=at_step,
            predicted=predicted,
            achieved=chunk_return(witness.returns(goals, config.num_steps_wait), at_step, self.horizon),
            success=witness.solved_before(config.num_steps_wait + result.num_steps),
        )

    def _config(self, seed: int, max_steps: int | None) -> EpisodeConfig:
        return EpisodeConfig(replan_steps=self.study.replan_steps, max_steps=max_steps, seed=seed)


def chunk_return(returns: NDArray[np.float32], at_step: int, horizon: int) -> float:
    """The mean over the steps of a chunk; after an episode's end its last return counts on."""
    steps = np.minimum(np.arange(at_step, at_step + horizon), len(returns) - 1)
    return float(returns[steps].mean())


def estimating(mode: str) -> dict[str, object]:
    """Options of a plan without iterations that tells a mode's score of itself."""
    return {"mode": mode, "num_iterations": 0, "estimate_value": True, "fixed_shapes": True}


def start_of(rules: Scenes, task: TaskInfo, state_index: int) -> Start:
    """Where a scene's episode begins."""
    seed = shifted_seed(task, state_index, rules.seed)
    return shifted_start(task.suite, task.index, state_index, seed, rules.shift)


def read_samples(file: Path) -> list[Sample]:
    """The whole lines of a file; a torn last one is cut off."""
    raw = file.read_bytes() if file.exists() else b""
    whole = raw[: raw.rfind(b"\n") + 1]
    if len(whole) != len(raw):
        os.truncate(file, len(whole))
    return [Sample(**json.loads(line)) for line in whole.splitlines()]
