"""Latent planning (paper section 4.3, Algorithm 1): the control flow over `imagine`, `score` and `decode`.

`model_calls` asks the models and `proposal` does the maths. Planning goes slice by slice (imagine, score, release), so
only values and the names of noises survive a slice. Planning is anytime: before each iteration the planner asks
`admission`, which grants the iteration when no plan becomes late by it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np

from wavserve.core.noise import FINAL
from wavserve.core.spec import PlannerConfig
from wavserve.core.tracing import span
from wavserve.core.types import Array, Handles, IterationRecord, Plan, Stop, ValueEstimate
from wavserve.planning.forecast import Forecast
from wavserve.planning.gather import gather
from wavserve.planning.model_calls import ModelCalls, PlanJob
from wavserve.planning.proposal import CONTROL_MODES, Proposal, scores_of, value_rows
from wavserve.scheduling.admission import Admission, Demand
from wavserve.scheduling.ledger import Work


@dataclass(frozen=True, slots=True)
class Planner:
    """Plans for one policy on one device. Holds no state of any plan."""

    calls: ModelCalls
    forecast: Forecast
    admission: Admission

    async def plan(self, job: PlanJob) -> Plan:
        """A chunk of normalised actions `[T, action channels]` and the record of its iterations.

        Raises BackendError when the models fail. The caller judges whether the deadline was met.
        """
        proposal = job.start or self.standard(job.config)
        records: list[IterationRecord] = []
        stopped = Stop.DONE
        for iteration in range(job.config.num_iterations):
            if not self._may_iterate(job, iteration):
                stopped = Stop.OUT_OF_TIME
                break
            with span("iteration", {"wavserve.iteration": iteration}):
                values = await self._explore(job, proposal, iteration)
                proposal, record = await self._refit(job, proposal, values, iteration)
            records.append(record)
            job.progress.iterations += 1
            if record.moved < job.config.early_stop:
                stopped = Stop.SETTLED
                break
        with span("final"):
            actions, estimate = await self._decode(job, proposal)
        return Plan(actions, tuple(records), stopped, proposal.video, proposal.value, estimate)

    def standard(self, config: PlannerConfig) -> Proposal:
        """Where a plan starts unless it continues another."""
        return Proposal.standard(self.calls.video_shape, self.calls.value_shape, config)

    def demand(self, robot: str, config: PlannerConfig, imagine_chunks: int, guided: bool = False) -> Demand:
        """The cost of a plan, from its frames to its last imagined frame. `guided`: its decode is guided."""
        floor = self.forecast.floor(config, imagine_chunks, guided)
        whole = floor + self.forecast.iteration(config) * config.num_iterations
        least_s = self.forecast.least_s(config, imagine_chunks, guided)
        return Demand(robot, floor, whole, least_s, alone=config.fixed_shapes)

    def _may_iterate(self, job: PlanJob, iteration: int) -> bool:
        """Asks admission for one more iteration; the work after it is needed in any case."""
        work, rest = self.forecast.iteration(job.config), self._final(job)
        if not job.ticket.bounded:  # it gets every iteration
            rest += work * (job.config.num_iterations - iteration - 1)
        return self.admission.grant(job.ticket, work, rest)

    def _final(self, job: PlanJob) -> Work:
        return self.forecast.final(job.config, job.imagine_chunks, job.guided)

    async def _explore(self, job: PlanJob, proposal: Proposal, iteration: int) -> Array | None:
        """Value tokens `[N, M, T]` of every sample, as computed on each video sample; None for control modes."""
        if job.config.mode in CONTROL_MODES:
            return None
        total, size = job.config.num_video_samples, self.forecast.slice_size(job.config)
        rows = value_rows(job.config.mode, total, job.config.num_value_samples)
        free = asyncio.Semaphore(self.forecast.slices_in_flight)

        async def explore_slice(samples: range) -> Array:
            async def score(handles: Handles) -> Array:
                mine = rows[samples.start : samples.stop]
                return await self.calls.score(job, proposal.value, handles, iteration, mine, release=True)

            async with free:
                return await self.calls.with_features(job, proposal.video, iteration, samples, score)

        cuts = [range(start, min(start + size, total)) for start in range(0, total, size)]
        return np.concatenate(await gather(*map(explore_slice, cuts)))

    async def _refit(
        self, job: PlanJob, proposal: Proposal, values: Array | None, iteration: int
    ) -> tuple[Proposal, IterationRecord]:
        with span("refit"), job.progress.measure("refit"):
            return await asyncio.to_thread(
                proposal.step, values, iteration, job.config, job.noise, self.calls.video_shape
            )

    async def _decode(self, job: PlanJob, proposal: Proposal) -> tuple[Array, ValueEstimate | None]:
        """The action chunk of one last draw, and its value estimate when the request asks for it."""
        self.admission.begin_final(job.ticket, self._final(job))

        async def act(handles: Handles) -> tuple[Array, ValueEstimate | None]:
            # before `decode`, which frees the slot
            estimate = await self._estimate(job, proposal, handles) if job.config.estimate_value else None
            return await self.calls.decode(job, proposal.value, handles), estimate

        return await self.calls.with_features(job, proposal.video, FINAL, range(1), act)

    async def _estimate(self, job: PlanJob, proposal: Proposal, handles: Handles) -> ValueEstimate:
        """The chosen plan, judged by M fresh value samples.

        The released code reports the value that comes with the actions instead. It integrates frozen features, and its
        SNR is up to 0.66 off.
        """
        # row 0 is the value noise that is decoded; the estimate has rows of its own
        rows = 1 + np.arange(job.config.num_value_samples)[None]
        values = await self.calls.score(job, proposal.value, handles, FINAL, rows, release=False)
        return ValueEstimate(float(scores_of(job.config.mode, values).max()), values.mean(axis=-1).ravel())
