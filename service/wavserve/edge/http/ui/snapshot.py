"""What the live page shows of one moment, as data. Knows no markup and not where the facts come from."""

from __future__ import annotations

from dataclasses import dataclass

from wavserve.core.control import RobotStatus
from wavserve.core.spec import PolicySpec
from wavserve.edge.recent_plans import RecentPlan
from wavserve.edge.refusals import Refusal
from wavserve.planning.device import Health, ModelState


@dataclass(frozen=True, slots=True)
class Gateway:
    """Which gateway it is. Constant."""

    host: str
    pid: int
    version: str
    http: str
    grpc: str
    policy: str
    digest: str
    untrained: bool
    backend: str
    dtype: str


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether plans are taken, and why not."""

    ready: bool
    fault: str | None
    draining: bool
    plans: int
    """under way"""


@dataclass(frozen=True, slots=True)
class StoreCall:
    """The outcome of the last call to the session store."""

    operation: str
    outcome: str
    """`ok`, `full` or `failed`"""
    seconds: float
    at: float


@dataclass(frozen=True, slots=True)
class Card:
    """A robot with a stream, or a session without one, and its last plan."""

    key: str
    """stands for the robot, or for the session"""
    name: str
    plan: RecentPlan | None
    robot: RobotStatus | None
    """None: no stream"""


@dataclass(frozen=True, slots=True)
class Share:
    """Who stands where on a device; see `scheduling.admission.Standing`."""

    name: str
    num_plans: int
    remaining_s: float
    beyond_s: float
    is_refused: bool


@dataclass(frozen=True, slots=True)
class DeviceState:
    """A device's queue, shares and models."""

    name: str
    health: Health
    fault: str | None
    plans: int
    queue_depth: int
    queue_age_s: float
    remaining_s: float
    shares: tuple[Share, ...]
    models: tuple[ModelState, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One moment. Times are in seconds of one clock, whose present is `now`."""

    now: float
    began: float
    gateway: Gateway
    readiness: Readiness
    resident_bytes: float
    """of the gateway's process"""
    num_robots: int
    """with a stream"""
    num_others: int
    """sessions without one that got a plan lately"""
    cards: tuple[Card, ...]
    """of the first ones"""
    devices: tuple[DeviceState, ...]
    store_where: str
    store_last: StoreCall | None
    store_last_ok: StoreCall | None
    num_sessions: int
    """in this process"""
    refusals: tuple[Refusal, ...]
    spec: PolicySpec
