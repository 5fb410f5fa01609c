"""A run of the fake environment: its configuration, a record, and a policy that fits LIBERO's robot."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.clients.gateways import POLICY
from wavserve.clients.libero.cells import Cell
from wavserve.clients.libero.records import EpisodeRecord, RunConfig
from wavserve.core.libero import ACTION_NAMES, STATE_NAMES
from wavserve.core.messages import PolicyInfo, Vector
from wavserve.core.spec import CameraSpec

CONFIG = RunConfig(
    suites=("fake_reach",),
    tasks=(),
    num_trials_per_task=2,
    first_state=0,
    seed=7,
    replan_steps=4,
    num_steps_wait=2,
    max_steps=None,
    rotation=180,
    transport="grpc",
    cells=(Cell(name="off", planner={"mode": "off"}), Cell(name="paper", planner={"mode": "paper"})),
    policy="tiny",
    policy_digest="d" * 64,
    untrained=True,
    versions={"wavserve": "1", "simulator": "fake 1"},
)
LIBERO_POLICY: PolicyInfo = replace(
    POLICY,
    untrained=False,
    embodiment="",
    control_hz=20.0,
    cameras=(CameraSpec("agentview", 32, 32), CameraSpec("wrist", 32, 32)),
    state=Vector(STATE_NAMES, ("",) * 8),
    action=Vector(ACTION_NAMES, ("",) * 7),
    rtc_modes=("off", "rtc_guided"),
)


def record_of(**changes: Any) -> EpisodeRecord:
    record = EpisodeRecord(
        suite="fake_reach",
        task=0,
        task_name="reach_a",
        state_index=0,
        seed=7,
        cell="off",
        planner={"mode": "off"},
        clock="lockstep",
        latency_ms=0.0,
        jitter_ms=0.0,
        loss=0.0,
        rtc="off",
        replan_steps=4,
        transport="grpc",
        policy="tiny",
        policy_digest="d" * 64,
        untrained=True,
        versions={"wavserve": "1", "service": "1"},
        success=True,
        num_steps=12,
        num_plans=3,
        num_holds=0,
        plan_latency_ms=None,
        seam_jump=None,
        receipt_digests=("a", "b", "c"),
        wall={"episode_s": 0.5},
    )
    return replace(record, **changes)
