"""When the answer to a plan arrives: at once, after a latency that is drawn, or when the machine has made it.

A clock counts control steps. It knows neither the simulator nor how a plan is made.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, get_args

from wavserve.clients.libero.cells import Clock
from wavserve.clients.libero.draws import Draws
from wavserve.clients.libero.plan_source import EpisodePlan
from wavserve.core.errors import InvalidRequest, shown
from wavserve.core.messages import ActionChunk

Observe = Callable[[], EpisodePlan]
"""Looks at the scene, on the thread that calls."""
Plan = Callable[[EpisodePlan], ActionChunk | None]
"""Waits for a plan. None: the service refuses to answer with it."""
MAX_LATENCY_MS = 60_000.0


@dataclass(frozen=True, slots=True)
class ClockConfig:
    """How time passes while a plan is made."""

    kind: Clock = "lockstep"
    """lockstep: the simulator waits for the plan. virtual: it goes on for as many steps as the latency that is drawn.
    wall: it goes on in real time"""
    latency_ms: float = 0.0
    """mean latency of a plan on the virtual clock, from the observation to the answer"""
    jitter_ms: float = 0.0
    """standard deviation of the latency"""
    loss: float = 0.0
    """share of plans that are lost. The robot notices it when the answer would have come, and asks again."""


@dataclass(frozen=True, slots=True, eq=False)
class Reply:
    """What became of a plan."""

    chunk: ActionChunk | None
    """None: the plan was lost or refused"""
    latency_ms: float
    lost: bool = False


class PlanClock(Protocol):
    """The clock of one episode. At most one plan is under way."""

    def ask(self, step: int, observe: Observe, plan: Plan) -> None:
        """Asks for a plan from what is observed before control step `step`. May raise what they raise."""
        ...

    def reply(self, step: int) -> Reply | None:
        """The reply that is there before control step `step`, once; None: none is. May raise what `plan` raised."""
        ...

    def tick(self) -> None:
        """A control step was executed: waits until the next one."""
        ...

    def close(self) -> None:
        """Waits for a plan under way, and drops it."""
        ...


def check_clock(config: ClockConfig) -> None:
    """Raises InvalidRequest naming the field."""
    if config.kind not in get_args(Clock):
        raise InvalidRequest("clock", f"one of {', '.join(get_args(Clock))}", shown(config.kind))
    for name, highest in (("latency_ms", MAX_LATENCY_MS), ("jitter_ms", MAX_LATENCY_MS), ("loss", 1.0)):
        value = getattr(config, name)
        if not 0.0 <= value <= highest:  # also true for NaN
            raise InvalidRequest(name, f"0 to {highest:g}", value)
        if value and config.kind != "virtual":
            raise InvalidRequest(name, f"0 with clock {config.kind}: only the virtual clock draws latencies", value)


def num_steps_of(latency_ms: float, dt_s: float) -> int:
    """Control steps that pass within a latency, rounded up: 300 ms are 6 steps of 50 ms."""
    return math.ceil(latency_ms / (dt_s * 1e3) - 1e-9)


def open_clock(config: ClockConfig, draws: Draws, dt_s: float) -> PlanClock:
    """The clock of one episode. Lockstep is a virtual clock without latency."""
    return WallClock(dt_s) if config.kind == "wall" else VirtualClock(config, draws, dt_s)


class VirtualClock:
    """Replies arrive at the control step that the drawn latency says, however long a plan really takes."""

    def __init__(self, config: ClockConfig, draws: Draws, dt_s: float) -> None:
        self._config, self._draws, self._dt_s = config, draws, dt_s
        self._under_way: tuple[int, Reply] | None = None  # with the step at which it arrives

    def ask(self, step: int, observe: Observe, plan: Plan) -> None:
        """As `PlanClock.ask`. The plan is made now. A lost one is not made: its request is lost."""
        config = self._config
        fate = self._draws.fate(step, config.latency_ms, config.jitter_ms, config.loss)
        reply = Reply(None if fate.lost else plan(observe()), fate.latency_ms, fate.lost)
        self._under_way = step + num_steps_of(fate.latency_ms, self._dt_s), reply

    def reply(self, step: int) -> Reply | None:
        """As `PlanClock.reply`."""
        if self._under_way is None or step < self._under_way[0]:
            return None
        (_, reply), self._under_way = self._under_way, None
        return reply

    def tick(self) -> None:
        """The next step may begin at once."""

    def close(self) -> None:
        """Drops the plan under way."""
        self._under_way = None


class WallClock:
    """Control steps keep real time, and plans are made on another thread meanwhile.

    A step that takes too long delays those after it: the simulator is never hurried to catch up.
    """

    def __init__(
        self, dt_s: float, now: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._dt_s, self._now, self._sleep = dt_s, now, sleep
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="plan")
        self._under_way: Future[Reply] | None = None
        self._next_at = now() + dt_s

    def ask(self, step: int, observe: Observe, plan: Plan) -> None:
        """As `PlanClock.ask`."""
        asked_at = self._now()
        request = observe()

        def timed() -> Reply:
            return Reply(plan(request), (self._now() - asked_at) * 1e3)

        self._under_way = self._thread.submit(timed)

    def reply(self, step: int) -> Reply | None:
        """As `PlanClock.reply`."""
        if self._under_way is None or not self._under_way.done():
            return None
        done, self._under_way = self._under_way, None
        return done.result()

    def tick(self) -> None:
        """Waits until the next control step is due."""
        now = self._now()
        self._sleep(max(0.0, self._next_at - now))
        self._next_at = max(self._next_at, now) + self._dt_s

    def close(self) -> None:
        """Waits for a plan under way."""
        self._thread.shutdown(cancel_futures=True)
