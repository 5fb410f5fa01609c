"""Where the live page's facts come from: it reads what exists, on the event loop, and computes little.

Knows no markup. Nothing that it tells names a session, because whoever knows a session's id may plan in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from wavserve.core.control import RobotStatus
from wavserve.core.errors import WavserveError
from wavserve.core.spec import PolicySpec
from wavserve.core.types import Clock
from wavserve.edge.grpc.control.robots import Robots
from wavserve.edge.http.ui.snapshot import Card, DeviceState, Gateway, Readiness, Share, Snapshot, StoreCall
from wavserve.edge.recent_plans import RecentPlan, RecentPlans
from wavserve.edge.refusals import Refusals
from wavserve.planning.device import Device
from wavserve.system.memory import resident_bytes

MAX_CARDS = 32
"""Robots that are shown with their plans. The others are counted."""
RECENT_S = 60.0
"""How long the plan of a session without a stream is shown."""
ASK_AFTER_S = 5.0
"""How old the last word of the shared session store may be while somebody looks."""
_NEW = "new-"
"""How the policy names a robot that has no session yet."""


class StoreHealth:
    """The session store as the last calls found it."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self.where = ""
        """the shared store, without a password; empty: there is none"""
        self.last: StoreCall | None = None
        self.last_ok: StoreCall | None = None
        self._clock = clock
        self._ask: Callable[[], Awaitable[None]] | None = None
        self._asking: asyncio.Task[None] | None = None

    def follow(self, where: str, ask: Callable[[], Awaitable[None]]) -> None:
        """`ask` makes a call to the shared store, of which `note` is told."""
        self.where, self._ask = where, ask

    def refresh(self) -> None:
        """Has the shared store asked when no plan has asked it lately. Does not wait for the answer."""
        is_fresh = self.last is not None and self._clock() - self.last.at < ASK_AFTER_S
        is_asking = self._asking is not None and not self._asking.done()
        if self.where and not is_fresh and not is_asking:
            self._asking = asyncio.create_task(self._ask_once())

    async def _ask_once(self) -> None:
        assert self._ask is not None
        with contextlib.suppress(WavserveError):
            await self._ask()

    def note(self, operation: str, outcome: str, seconds: float) -> None:
        """A call has ended."""
        self.last = StoreCall(operation, outcome, seconds, self._clock())
        if outcome == "ok":
            self.last_ok = self.last


@dataclass(frozen=True, slots=True)
class Sources:
    """What a snapshot is read from."""

    gateway: Gateway
    spec: PolicySpec
    readiness: Callable[[], Readiness]
    devices: Callable[[], Sequence[Device]]
    num_sessions: Callable[[], int]
    robots: Robots
    plans: RecentPlans
    refusals: Refusals
    store: StoreHealth
    clock: Clock = time.monotonic
    began: float = field(default_factory=time.monotonic)

    def read(self) -> Snapshot:
        """The present moment."""
        robots = self.robots.by_session()
        cards = self._cards(robots)
        names = {session_id: status.robot_id for session_id, status in robots if session_id is not None}
        return Snapshot(
            now=self.clock(),
            began=self.began,
            gateway=self.gateway,
            readiness=self.readiness(),
            resident_bytes=resident_bytes(),
            num_robots=len(robots),
            num_others=sum(card.robot is None for card in cards),
            cards=tuple(cards[:MAX_CARDS]),
            devices=tuple(_device(device, names) for device in self.devices()),
            store_where=self.store.where,
            store_last=self.store.last,
            store_last_ok=self.store.last_ok,
            num_sessions=self.num_sessions(),
            refusals=tuple(self.refusals.latest()),
            spec=self.spec,
        )

    def plan_of(self, key: str) -> tuple[str, RecentPlan | None]:
        """The name and the last plan of a card. Both are empty where there is no such card."""
        cards = self._cards(self.robots.by_session())
        return next(((card.name, card.plan) for card in cards if card.key == key), ("", None))

    def _cards(self, robots: Sequence[tuple[str | None, RobotStatus]]) -> list[Card]:
        """Robots with a stream by id, then sessions without one, by name."""
        known = {session_id for session_id, _ in robots}
        others = [plan for plan in self.plans.within(RECENT_S) if plan.session_id not in known]
        others.sort(key=lambda plan: _name(plan.session_id))  # the order of their plans changes all the time
        return [
            *(
                Card(_key("r", status.robot_id), status.robot_id, self.plans.of(session_id), status)
                for session_id, status in robots
            ),
            *(Card(_key("s", plan.session_id), _name(plan.session_id), plan, None) for plan in others),
        ]


def _key(kind: str, text: str) -> str:
    return kind + hashlib.sha256(text.encode(errors="replace")).hexdigest()[:12]


def _name(session_id: str) -> str:
    """What a session without a stream is called. It does not reveal the id."""
    return f"session {_key('', session_id)[:6]}"


def _device(device: Device, names: Mapping[str, str]) -> DeviceState:
    """`names`: robots with a stream, by session."""
    admission = device.planner.admission
    return DeviceState(
        name=device.name,
        health=device.state,
        fault=device.fault,
        plans=device.plans,
        queue_depth=device.batcher.queue_depth,
        queue_age_s=device.batcher.queue_age_s,
        remaining_s=admission.remaining_s,
        shares=tuple(
            Share(
                names.get(each.robot) or ("a new session" if each.robot.startswith(_NEW) else _name(each.robot)),
                each.num_plans,
                each.remaining_s,
                each.beyond_s,
                each.is_refused,
            )
            for each in admission.standings()
        ),
        models=device.models(),
    )
