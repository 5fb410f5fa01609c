"""One run: the phases of a scenario, one after another, against a service that is there.

Called by `load.py`. Robots of a phase come over its ramp, ask until its end and then finish the plan under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import httpx

from swarm import figures, probes
from swarm.frames import Frames
from swarm.journal import Journal, Span
from swarm.robot import Identity, Robot, WallClock
from swarm.scenario import Phase, Scenario
from swarm.turns import FreeTurns, ToldTurns, Turns
from swarm.wires import PATIENCE_S, wire_for


@dataclass(frozen=True, slots=True)
class Target:
    """A running service: base URL, `host:port` of gRPC, and its process where that is known."""

    http: str
    grpc: str | None
    pid: int | None = None


@dataclass(slots=True)
class Run:
    """A scenario being run. `journal` may be read while it grows."""

    scenario: Scenario
    target: Target
    journal: Journal = field(default_factory=Journal)
    frames: Frames = field(default_factory=Frames.recorded)
    on_phase: Callable[[Phase, float], None] = lambda phase, ends: None
    """told of every phase and when it ends (monotonic)"""
    _finishing: list[asyncio.Task[None]] = field(default_factory=list)
    """robots of the phase before that have a plan under way"""

    async def play(self) -> Journal:
        """Every phase. Raises ValueError when the service's gRPC address is needed and missing."""
        async with _client(self.target) as robots, _client(self.target) as prober, self._watched(prober):
            for phase in self.scenario.phases:
                await self._play(phase, robots)
            await self._finish()
        return self.journal

    async def _play(self, phase: Phase, client: httpx.AsyncClient) -> None:
        if not phase.overlaps:
            await self._finish()
        began = time.monotonic()
        ends = began + phase.duration_s
        self.on_phase(phase, ends)
        told = None if phase.load is None else phase.load * figures.capacity(self.journal)
        turns = FreeTurns() if told is None else ToldTurns(told)
        tasks = [
            asyncio.create_task(self._live(identity, client, turns, (began + wait, ends)))
            for identity, wait in self._coming(phase)
        ]
        giving = [asyncio.create_task(turns.give(ends))] if isinstance(turns, ToldTurns) else []
        await asyncio.sleep(max(ends - time.monotonic(), 0.0))
        await asyncio.gather(*giving)
        self._finishing += tasks
        untaken = turns.untaken if isinstance(turns, ToldTurns) else 0
        self.journal.spans.append(
            Span(phase.name, began, time.monotonic(), phase.robots, phase.warm_up, phase.measures, told, untaken)
        )
        if phase.measures is not None:  # what it measures must be whole before anything relies on it
            await self._finish()

    def _coming(self, phase: Phase) -> list[tuple[Identity, float]]:
        """The robots of a phase, groups in turn, each with how long after its begin it comes."""
        names = [(group, number) for group, count in phase.robots.items() for number in range(count)]
        names.sort(key=lambda named: named[1])
        every = phase.ramp_s / max(len(names), 1)
        coming = []
        for index, (name, number) in enumerate(names):
            group = self.scenario.robots[name]
            deadline_ms = group.deadline_ms
            if group.deadline_plans is not None:
                deadline_ms = round(group.deadline_plans * figures.lone_s(self.journal) * 1e3)
            seed = self.scenario.seed + index
            coming.append((Identity(f"{name}-{number}", name, phase.name, group, deadline_ms, seed), index * every))
        return coming

    async def _live(
        self, identity: Identity, client: httpx.AsyncClient, turns: Turns, times: tuple[float, float]
    ) -> None:
        comes, until = times
        await asyncio.sleep(max(comes - time.monotonic(), 0.0))
        wire = wire_for(identity.group.edge, client, self.target.grpc)
        try:
            await Robot(identity, wire, self.frames, self.journal, WallClock()).live(turns, until)
        finally:
            await wire.close()

    async def _finish(self) -> None:
        finishing, self._finishing = self._finishing, []
        await asyncio.gather(*finishing)

    @contextlib.asynccontextmanager
    async def _watched(self, client: httpx.AsyncClient) -> AsyncIterator[None]:
        watching = [probes.watch_health(client, self.journal), probes.watch_lag(self.journal)]
        watching.append(probes.watch_metrics(client, self.journal))
        if self.target.pid is not None:
            watching.append(probes.watch_memory(self.target.pid, self.journal))
        tasks = [asyncio.create_task(work) for work in watching]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            for error in ended:
                if isinstance(error, Exception):  # a probe that broke would leave gaps that look like rest
                    raise error


def _client(target: Target) -> httpx.AsyncClient:
    """Without a limit of connections: a request that waits for one would count as the service's time."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.AsyncClient(base_url=target.http, timeout=PATIENCE_S, limits=limits)
