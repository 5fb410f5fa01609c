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

from loadtest.robots import figures, probes
from loadtest.robots.frames import Frames
from loadtest.robots.journal import Journal, Span
from loadtest.robots.robot import Identity, Robot, Shift, WallClock
from loadtest.robots.scenario import Phase, RobotGroup, Scenario
from loadtest.robots.turns import FreeTurns, ToldTurns, Turns
from loadtest.robots.wires import PATIENCE_S, wire_for


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
    _robots: dict[str, Robot] = field(default_factory=dict)
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
        rate = None if phase.load is None else phase.load * figures.capacity(self.journal, phase.load_of)
        turns = FreeTurns() if rate is None else ToldTurns(rate)
        every = phase.ramp_s / sum(phase.robots.values())
        tasks = [
            asyncio.create_task(self._work(robot, group, (began + index * every, ends), (phase, turns, client)))
            for index, (robot, group) in enumerate(self._called(phase))
        ]
        if isinstance(turns, ToldTurns):
            await turns.give(ends)
        await asyncio.sleep(max(ends - time.monotonic(), 0.0))
        self._finishing += tasks
        self.journal.spans.append(self._span(phase, began, turns))
        if phase.measures is not None:  # what it measures must be whole before anything relies on it
            await self._finish()

    def _span(self, phase: Phase, began: float, turns: Turns) -> Span:
        rate, untaken = (turns.per_s, turns.untaken) if isinstance(turns, ToldTurns) else (None, 0)
        return Span(
            phase.name,
            began,
            time.monotonic(),
            phase.robots,
            phase.warm_up,
            phase.measures,
            phase.judged,
            rate,
            untaken,
        )

    def _called(self, phase: Phase) -> list[tuple[Robot, RobotGroup]]:
        """The robots of a phase, groups in turn; one that worked in an earlier phase comes again."""
        names = [(number, group) for group, count in phase.robots.items() for number in range(count)]
        return [(self._robot(name, number), self.scenario.robots[name]) for number, name in sorted(names)]

    def _robot(self, group: str, number: int) -> Robot:
        name = f"{group}-{number}"
        if name not in self._robots:
            identity = Identity(name, group, self.scenario.robots[group], self.scenario.seed + len(self._robots))
            self._robots[name] = Robot(identity, self.frames, self.journal, WallClock())
        return self._robots[name]

    async def _work(
        self, robot: Robot, group: RobotGroup, times: tuple[float, float], told: tuple[Phase, Turns, httpx.AsyncClient]
    ) -> None:
        (comes, until), (phase, turns, client) = times, told
        await asyncio.sleep(max(comes - time.monotonic(), 0.0))
        wire = wire_for(group.edge, client, self.target.grpc)
        try:
            await robot.work(Shift(phase.name, until, turns, wire, self._deadline_ms(group)))
        finally:
            await wire.close()

    def _deadline_ms(self, group: RobotGroup) -> int | None:
        if group.deadline_plans is None:
            return group.deadline_ms
        return round(group.deadline_plans * figures.lone_s(self.journal) * 1e3)

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
    """Without a limit of connections: a request that waits for one would count as the service's time.

    An idle one is given up sooner than the service closes it (after 5 s): a request must not meet one being closed.
    """
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=2.0)
    return httpx.AsyncClient(base_url=target.http, timeout=PATIENCE_S, limits=limits)
