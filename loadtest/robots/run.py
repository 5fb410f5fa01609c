"""One run: the phases of a scenario in turn, against a running service.

The robots of a phase start over its ramp, send requests until its end, and then wait for the request in flight.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import httpx

from loadtest.robots import figures, probes
from loadtest.robots.event_log import EventLog, PhaseRecord
from loadtest.robots.frames import Frames
from loadtest.robots.pacing import ClosedLoop, OpenLoop, Pacing
from loadtest.robots.robot import Assignment, Identity, Robot, WallClock
from loadtest.robots.scenario import Phase, RobotGroup, Scenario
from loadtest.robots.transports import ANSWER_TIMEOUT_S, transport_for


@dataclass(frozen=True, slots=True)
class Target:
    """A running service: its base URL, its gRPC `host:port`, and its process id if known."""

    http: str
    grpc: str | None
    pid: int | None = None


@dataclass(slots=True)
class Run:
    """A scenario being run. `log` may be read while it grows."""

    scenario: Scenario
    target: Target
    log: EventLog = field(default_factory=EventLog)
    frames: Frames = field(default_factory=Frames.recorded)
    on_phase: Callable[[Phase, float], None] = lambda phase, ends: None
    """called at the start of each phase, with the phase and its end on the monotonic clock"""
    _robots: dict[str, Robot] = field(default_factory=dict)
    _finishing: list[asyncio.Task[None]] = field(default_factory=list)
    """robots of earlier phases that may have a request in flight"""

    async def run(self) -> EventLog:
        """Runs every phase. Raises ValueError when the service's gRPC address is needed and missing."""
        async with _client(self.target) as robots, _client(self.target) as prober, self._probing(prober):
            for phase in self.scenario.phases:
                await self._run_phase(phase, robots)
            await self._finish()
        return self.log

    async def _run_phase(self, phase: Phase, client: httpx.AsyncClient) -> None:
        if not phase.overlaps:
            await self._finish()
        began = time.monotonic()
        ends = began + phase.duration_s
        self.on_phase(phase, ends)
        rate = None if phase.load is None else phase.load * figures.capacity(self.log, phase.load_of)
        pacing = ClosedLoop() if rate is None else OpenLoop(rate)
        every = phase.ramp_s / sum(phase.robots.values())
        tasks = [
            asyncio.create_task(self._drive(robot, group, (began + index * every, ends), (phase, pacing, client)))
            for index, (robot, group) in enumerate(self._robots_of(phase))
        ]
        if isinstance(pacing, OpenLoop):
            await pacing.issue(ends)
        await asyncio.sleep(max(ends - time.monotonic(), 0.0))
        self._finishing += tasks
        self.log.phases.append(_recorded(phase, began, pacing))
        if phase.measures is not None:  # later phases rely on the measurement, so all its requests must have ended
            await self._finish()

    def _robots_of(self, phase: Phase) -> list[tuple[Robot, RobotGroup]]:
        """The robots of a phase, groups in turn. A robot of an earlier phase is used again."""
        names = [(number, group) for group, count in phase.robots.items() for number in range(count)]
        return [(self._robot(name, number), self.scenario.robots[name]) for number, name in sorted(names)]

    def _robot(self, group: str, number: int) -> Robot:
        name = f"{group}-{number}"
        if name not in self._robots:
            identity = Identity(name, group, self.scenario.robots[group], self.scenario.seed + len(self._robots))
            self._robots[name] = Robot(identity, self.frames, self.log, WallClock())
        return self._robots[name]

    async def _drive(
        self, robot: Robot, group: RobotGroup, times: tuple[float, float], how: tuple[Phase, Pacing, httpx.AsyncClient]
    ) -> None:
        (starts, until), (phase, pacing, client) = times, how
        await asyncio.sleep(max(starts - time.monotonic(), 0.0))
        transport = transport_for(group.edge, client, self.target.grpc)
        try:
            await robot.work(Assignment(phase.name, until, pacing, transport, self._deadline_ms(group)))
        finally:
            await transport.close()

    def _deadline_ms(self, group: RobotGroup) -> int | None:
        if group.deadline_plans is None:
            return group.deadline_ms
        return round(group.deadline_plans * figures.lone_s(self.log) * 1e3)

    async def _finish(self) -> None:
        finishing, self._finishing = self._finishing, []
        await asyncio.gather(*finishing)

    @contextlib.asynccontextmanager
    async def _probing(self, client: httpx.AsyncClient) -> AsyncIterator[None]:
        """Runs the probes until the end of the block. Raises the error of a probe that failed."""
        watching = [probes.watch_health(client, self.log), probes.watch_lag(self.log)]
        watching.append(probes.watch_metrics(client, self.log))
        if self.target.pid is not None:
            watching.append(probes.watch_memory(self.target.pid, self.log))
        tasks = [asyncio.create_task(work) for work in watching]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            for error in ended:
                if isinstance(error, Exception):  # otherwise its gap in the log would look like an idle service
                    raise error


def _recorded(phase: Phase, began: float, pacing: Pacing) -> PhaseRecord:
    rate, unused = (pacing.per_s, pacing.unused) if isinstance(pacing, OpenLoop) else (None, 0)
    return PhaseRecord(
        phase.name,
        began,
        time.monotonic(),
        phase.robots,
        phase.warm_up,
        phase.measures,
        phase.judged,
        rate,
        unused,
    )


def _client(target: Target) -> httpx.AsyncClient:
    """A client without a limit of connections: waiting for a connection would count as the service's time. It ignores
    the environment's proxies.

    It drops an idle connection earlier than the service does (after 5 s), so that no request uses one that is closing.
    """
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=2.0)
    return httpx.AsyncClient(base_url=target.http, timeout=ANSWER_TIMEOUT_S, limits=limits, trust_env=False)
