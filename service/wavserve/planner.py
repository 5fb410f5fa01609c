"""Latent planning (paper section 4.3, Algorithm 1): control flow over `imagine`, `score` and `decode`.

Called by the policy; `calls` asks the models, `proposal` does the maths. Planning goes slice by slice - imagine, score,
release - so only scores and the names of noises survive a slice. Anytime: given a deadline it stops before the
iteration that would miss it, judged from measured times.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from wavserve.calls import Handles, Job, ModelCalls
from wavserve.noise import FINAL
from wavserve.pace import Pace
from wavserve.proposal import Proposal, snr, value_rows
from wavserve.types import Array, Gaussian, IterationRecord, Plan


@dataclass(frozen=True, slots=True)
class SliceConfig:
    """How a plan's samples are cut: `size` video samples at a time, `in_flight` slices of one plan at once."""

    size: int
    in_flight: int


@dataclass(frozen=True, slots=True)
class Planner:
    """Plans for one policy; holds no state of any plan, only measured times."""

    calls: ModelCalls
    slices: SliceConfig
    pace: Pace
    clock: Callable[[], float] = time.monotonic

    async def plan(self, job: Job) -> Plan:
        """A chunk of normalised actions `[T, action channels]` and what was done to get it.

        Raises BackendError when the models fail. Whether the deadline was met is for the caller to judge.
        """
        proposal = Proposal.standard(self.calls.video_shape, self.calls.value_shape, job.config)
        records: list[IterationRecord] = []
        for iteration in range(job.config.num_iterations):
            if not self.pace.another_fits(job.config, job.deadline - job.reserve_s - self.clock()):
                break
            with self.pace.iteration(job.config):
                values = await self._explore(job, proposal, iteration)
                proposal, record = await self._refit(job, proposal, values, iteration)
            records.append(record)
        with self.pace.final(job.config):
            actions, estimate = await self._decode(job, proposal)
        return Plan(actions, tuple(records), proposal.video, proposal.value, estimate, job.stages.seconds)

    async def picture(self, job: Job, video: Gaussian, chunk: int) -> Array:
        """The imagined future of a finished plan: normalised latents `[V, C, F, H, W]` of its `chunk`-th stretch."""
        return await self.calls.denoise(job, video, chunk)

    async def _explore(self, job: Job, proposal: Proposal, iteration: int) -> Array:
        """Value tokens `[N, M, T]` of every sample, as computed on each video sample."""
        total, size = job.config.num_video_samples, self.slices.size
        rows = value_rows(job.config.mode, total, job.config.num_value_samples)
        free = asyncio.Semaphore(self.slices.in_flight)

        async def explore_slice(samples: range) -> Array:
            async def score(handles: Handles) -> Array:
                mine = rows[samples.start : samples.stop]
                return await self.calls.score(job, proposal.value, handles, iteration, mine, release=True)

            async with free:
                return await self.calls.with_features(job, proposal.video, iteration, samples, score)

        cuts = [range(start, min(start + size, total)) for start in range(0, total, size)]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(explore_slice(samples)) for samples in cuts]
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None  # its neighbours failed likewise or were cancelled for it
        return np.concatenate([task.result() for task in tasks])

    async def _refit(
        self, job: Job, proposal: Proposal, values: Array, iteration: int
    ) -> tuple[Proposal, IterationRecord]:
        with job.stages.measure("refit"):
            return await asyncio.to_thread(
                proposal.step, values, iteration, job.config, job.noise, self.calls.video_shape
            )

    async def _decode(self, job: Job, proposal: Proposal) -> tuple[Array, float | None]:
        """The action chunk of one last draw, and its value estimate when asked for."""

        async def act(handles: Handles) -> tuple[Array, float | None]:
            estimate = await self._estimate(job, proposal, handles) if job.config.estimate_value else None
            return await self.calls.decode(job, proposal.value, handles), estimate

        return await self.calls.with_features(job, proposal.video, FINAL, range(1), act)

    async def _estimate(self, job: Job, proposal: Proposal, handles: Handles) -> float:
        """Score of the chosen plan by M value samples of its own; not the released by-product (PAPER, fault 5)."""
        rows = 1 + np.arange(job.config.num_value_samples)[None]
        values = await self.calls.score(job, proposal.value, handles, FINAL, rows, release=False)
        return float(snr(values).max())
