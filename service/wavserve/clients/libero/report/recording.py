"""An episode as it was recorded, and how its states become pictures again. Knows no simulator but by its protocol."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from wavserve.clients.libero.episode import EpisodeResult, PlannedChunk
from wavserve.core.errors import InvalidRequest
from wavserve.core.libero import STILL
from wavserve.core.resize import Pixels
from wavserve.core.simulation import Environment, Start


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """What an episode's file of states holds. P: plans."""

    states: NDArray[np.float64]
    """`[n, D]`: the simulator's state before each control step, and the last one"""
    plan_steps: NDArray[np.int64]
    """`[P]`: the control step of each plan's observation"""
    values: NDArray[np.float64]
    """`[P]`: the return that each plan predicts, or its value estimate where the policy declares no units; NaN: the
    planner told none"""
    chunks: NDArray[np.float32]
    """`[P, T, A]`: action i of a chunk belongs to the plan's control step + i"""

    @classmethod
    def of(cls, result: EpisodeResult) -> Recording:
        """Of an episode that has just been run. A cut chunk is filled up with zeros: the robot then stands still."""
        plans = result.chunks
        chunks = np.zeros((len(plans), max((len(plan.actions) for plan in plans), default=0), len(STILL)), np.float32)
        for chunk, plan in zip(chunks, plans, strict=True):
            chunk[: len(plan.actions)] = plan.actions
        return cls(
            states=result.sim_states,
            plan_steps=np.array([plan.control_step for plan in plans], np.int64),
            values=np.array([_predicted(plan) for plan in plans], np.float64),
            chunks=chunks,
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What the episode's file holds."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def load(cls, file: Path) -> Recording:
        """Raises InvalidRequest for a file that is none."""
        try:
            with np.load(file) as arrays:
                return cls(**{field.name: arrays[field.name] for field in fields(cls)})
        except (OSError, EOFError, ValueError, KeyError, BadZipFile, zlib.error) as error:
            raise InvalidRequest(str(file), "the recorded states of an episode", error) from error

    def plan_at(self, step: int) -> int | None:
        """Index of the newest plan at a control step; None: there is none yet."""
        made = np.flatnonzero(self.plan_steps <= step)
        return int(made[-1]) if made.size else None


@dataclass(frozen=True, slots=True, eq=False)
class Shot:
    """One moment of an episode."""

    images: Mapping[str, Pixels]
    """by camera, as the policy sees them"""
    position: NDArray[np.float64]
    """`[3]`: of the gripper, in m"""
    projections: Mapping[str, NDArray[np.float64]]
    """`[3, 4]` by camera: takes `(x, y, z, 1)` to `(column w, row w, w)` of its picture"""


Render = Callable[[Start, NDArray[Any]], Iterator[Shot]]
"""Renders the recorded states `[n, D]` of the episode that began at a start, in order."""


def renderer(environment: Environment, rotation: int) -> Render:
    """Renders by a simulator. `rotation`: degrees by which the policy's pictures are turned against captured ones, 0 or
    180."""

    def render(start: Start, states: NDArray[Any]) -> Iterator[Shot]:
        environment.reset(start)
        for state in states:
            environment.restore(state)
            images, projections = environment.images(), environment.projections()
            if rotation:
                projections = {name: _turned(projections[name], images[name].shape) for name in projections}
                images = {name: pixels[::-1, ::-1] for name, pixels in images.items()}
            yield Shot(images, environment.state()[:3], projections)

    return render


def _turned(projection: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The projection into a picture that was turned by 180 degrees."""
    height, width = shape[:2]
    return np.array([[-1.0, 0.0, width], [0.0, -1.0, height], [0.0, 0.0, 1.0]]) @ projection


def _predicted(plan: PlannedChunk) -> float:
    known = plan.value if plan.expected_return is None else plan.expected_return
    return math.nan if known is None else known
