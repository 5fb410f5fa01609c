"""Puts an evaluation together: a policy that fits, its sources, the episodes, and what goes on record.

The environments and a policy without a service come through seams. Knows no command line.
"""

from __future__ import annotations

import os
import socket
from dataclasses import asdict, dataclass, field

from wavserve.clients.libero.cells import Cell
from wavserve.clients.libero.clocks import ClockConfig
from wavserve.clients.libero.contract import check_policy, rotation_of
from wavserve.clients.libero.episode import EpisodeConfig, EpisodeResult, run_episode
from wavserve.clients.libero.episodes import Episode, chosen_tasks, episodes_of
from wavserve.clients.libero.options import Options, cells_of, run_config
from wavserve.clients.libero.plan_source import Planner, PlanSource, SourceConfig, UnarySource
from wavserve.clients.libero.records import EpisodeRecord, RunConfig, Spread
from wavserve.clients.libero.report.recording import Recording
from wavserve.clients.libero.runner import Arrays, Timed
from wavserve.clients.libero.stream_source import StreamSource
from wavserve.core.errors import InvalidRequest
from wavserve.core.jpeg import JPEG_QUALITY
from wavserve.core.messages import PolicyInfo
from wavserve.core.options import merge_options
from wavserve.core.simulation import Environment
from wavserve.core.tracing import Tracer

REPEATABLE: dict[str, object] = {"fixed_shapes": True}
"""A plan's numbers then do not depend on what else the service does. On the wall clock its time counts more."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An evaluation that may begin: the policy fits the robot, and the tasks exist."""

    options: Options
    planner: Planner
    policy: PolicyInfo
    config: RunConfig
    episodes: list[Episode]
    tracer: Tracer = field(default_factory=Tracer)

    @classmethod
    def of(
        cls, options: Options, planner: Planner, environment: Environment, wavserve: str, tracer: Tracer
    ) -> Evaluation:
        """`wavserve`: its version. `tracer`: of streams. Raises ContractMismatch and InvalidRequest naming what does
        not fit."""
        policy = planner.policy()
        check_policy(policy, options.allow_untrained)
        for cell in cells_of(options):
            merge_options(policy.defaults, policy.bounds, dict(cell.planner))
            if cell.rtc not in policy.rtc_modes:
                raise InvalidRequest("--rtc", f"{', '.join(policy.rtc_modes)}, the policy's modes", cell.rtc)
        suites = {suite: environment.tasks(suite) for suite in options.suite}
        versions = {"wavserve": wavserve, **environment.versions()}
        config = run_config(options, policy, rotation_of(policy, options.rotation), versions)
        return cls(options, planner, policy, config, episodes_of(config, chosen_tasks(suites, config)), tracer)

    def open_source(self, cell: Cell, worker: int) -> PlanSource:
        """A source for the episodes of a cell. `worker`: tells streams at one time apart."""
        on_wall = cell.clock == "wall"
        config = SourceConfig(
            rotation=self.config.rotation,
            options=cell.planner if on_wall else {**REPEATABLE, **cell.planner},
            rtc_mode=cell.rtc,
            jpeg_quality=JPEG_QUALITY if on_wall else None,
            tracer=self.tracer,
        )
        if self.config.transport != "stream":
            return UnarySource(self.planner, self.policy, config)
        robot_id = f"libero-{socket.gethostname()[:64]}-{os.getpid()}-{worker}"
        return StreamSource(self.options.address, robot_id, self.policy, config)

    def play(self, environment: Environment, source: PlanSource, episode: Episode) -> EpisodeResult:
        """Runs an episode. Raises what the environment and the source raise."""
        cell = episode.cell
        config = EpisodeConfig(
            replan_steps=self.config.replan_steps,
            num_steps_wait=self.config.num_steps_wait,
            max_steps=self.config.max_steps,
            clock=ClockConfig(cell.clock, cell.latency_ms, cell.jitter_ms, cell.loss),
            rtc_mode=cell.rtc,
            blind=cell.blind,
            seed=episode.seed,
        )
        return run_episode(environment, source, episode.start, config)

    def record(self, episode: Episode, result: EpisodeResult, timed: Timed) -> tuple[EpisodeRecord, Arrays]:
        """What goes on record of an episode that has ended."""
        return record_of(self.config, episode, result, timed), Recording.of(result).arrays()


def record_of(config: RunConfig, episode: Episode, result: EpisodeResult, timed: Timed) -> EpisodeRecord:
    """The record of an episode of a run."""
    cell, task = episode.cell, episode.task
    return EpisodeRecord(
        suite=task.suite,
        task=task.index,
        task_name=task.name,
        state_index=episode.state_index,
        seed=episode.seed,
        cell=cell.name,
        planner=dict(cell.planner),
        clock=cell.clock,
        latency_ms=cell.latency_ms,
        jitter_ms=cell.jitter_ms,
        loss=cell.loss,
        rtc=cell.rtc,
        replan_steps=config.replan_steps,
        transport=config.transport,
        policy=config.policy,
        policy_digest=config.policy_digest,
        untrained=config.untrained,
        versions={**config.versions, "service": timed.service_version},
        success=result.success,
        num_steps=result.num_steps,
        num_plans=result.num_plans,
        num_holds=result.num_holds,
        num_lost=result.num_lost,
        num_unsafe=result.num_unsafe,
        num_late=result.num_late,
        antialiasing=config.antialiasing,
        shift=config.shift,
        blind=cell.blind,
        failure=result.failure,
        plan_latency_ms=Spread.of(result.plan_latencies_ms) if cell.clock == "virtual" else None,
        seam_jump=Spread.of(result.seam_jumps),
        receipt_digests=result.receipt_digests,
        wall=_wall(timed),
    )


def _wall(timed: Timed) -> dict[str, float]:
    plan_ms = Spread.of(timed.plan_ms)
    spread = {} if plan_ms is None else {f"plan_ms_{name}": round(value, 2) for name, value in asdict(plan_ms).items()}
    return {"episode_s": round(timed.episode_s, 3), **spread}
