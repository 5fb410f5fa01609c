"""A source of plans without a service, for `FakeEnvironment`: each chunk leads to the goal of the present episode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np

from tests.clients.chunks import chunk_of
from tests.simulation.fake import STEP_M, FakeEnvironment, toward_goal
from wavserve.clients.libero.episode import EpisodeResult
from wavserve.clients.libero.plan_source import EpisodePlan
from wavserve.core.messages import ActionChunk, PolicyInfo, Vector
from wavserve.core.spec import CameraSpec, PlannerBounds, PlannerConfig, RtcSpec

DIM = 7
SPEED = 0.5
"""of the fastest: an episode takes about 16 steps"""


class GoalSource:
    """Plans `horizon` steps. `on_plan` sees every request, and may raise.

    The actions have noise of the request's seed, so that they depend on all of the request.
    """

    def __init__(
        self, environment: FakeEnvironment, horizon: int = 16, on_plan: Callable[[EpisodePlan], None] = lambda _: None
    ) -> None:
        self.requests: list[EpisodePlan] = []
        """of the present episode"""
        self.instructions: list[str] = []
        self.changes: dict[str, object] = {}
        """of the chunks' fields"""
        self._environment, self._horizon, self._on_plan = environment, horizon, on_plan

    def begin(self, instruction: str) -> None:
        self.instructions.append(instruction)
        self.requests = []

    def plan(self, request: EpisodePlan) -> ActionChunk:
        self._on_plan(request)
        self.requests.append(request)
        state, noise = request.state.copy(), np.random.default_rng(request.seed).normal(0.0, 0.05, (self._horizon, 1))
        rows = []
        for deviation in noise:
            rows.append(toward_goal(state, self._environment.goal))
            rows[-1][:3] = SPEED * rows[-1][:3] + deviation
            state[:3] += STEP_M * np.clip(rows[-1][:3], -1.0, 1.0)
        chunk = chunk_of(
            np.array(rows, np.float32),
            request.control_step,
            len(self.requests) - 1,
            **{"session_id": f"episode {len(self.instructions)}", "dt_ns": 50_000_000, "epoch": 0} | self.changes,
        )
        receipt = replace(
            chunk.receipt, seed=request.seed, value_estimate=float(len(self.requests)), expected_return=None
        )
        return replace(chunk, receipt=receipt)

    def policy(self) -> PolicyInfo:
        return replace(policy_info(), horizon=self._horizon)

    def close(self) -> None:
        pass


def assert_same(one: EpisodeResult, other: EpisodeResult) -> None:
    """The same episode in every number."""
    for each in fields(EpisodeResult):
        if each.name not in ("chunks", "sim_states"):
            assert getattr(one, each.name) == getattr(other, each.name), each.name
    for chunk, same in zip(one.chunks, other.chunks, strict=True):
        assert (chunk.control_step, chunk.value) == (same.control_step, same.value)
        assert chunk.actions.tobytes() == same.actions.tobytes()
    assert one.sim_states.tobytes() == other.sim_states.tobytes()


def policy_info() -> PolicyInfo:
    """A policy that fits `FakeEnvironment`."""
    names = tuple(f"action_{i}" for i in range(DIM))
    return PolicyInfo(
        name="goal",
        digest="d" * 64,
        untrained=False,
        cameras=tuple(CameraSpec(name, 32, 32) for name in ("agentview", "wrist")),
        state=Vector(tuple(f"state_{i}" for i in range(8)), ("1",) * 8),
        action=Vector(names, ("1",) * DIM, hold=(*("zero",) * 6, "last")),
        horizon=16,
        control_hz=20.0,
        history_frames=4,
        max_instruction_bytes=255,
        defaults=PlannerConfig(),
        bounds=PlannerBounds(),
        notes="",
        max_message_bytes=2**24,
        embodiment="",
        action_kind="absolute",
        rtc=RtcSpec(),
        rtc_modes=("off", "rtc_guided"),
        max_trained_delay=0,
        golden_digest="",
    )
