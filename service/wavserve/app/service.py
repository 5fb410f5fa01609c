"""Assembles the service from the settings: everything between the edges and the models.

Part of the composition root; `fleet` opens the devices. Every part gets only its own slice of the settings. Nothing is
global. Knows no edge, no socket and no signal.
"""

from __future__ import annotations

import logging
import platform
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version

from wavserve.app.fleet import Close, Fleet, WrapBackend, identity, open_fleet
from wavserve.app.live_page import Noted
from wavserve.app.session_store import OpenedStore, open_store, open_texts
from wavserve.app.settings import Settings
from wavserve.core.messages import ActionChunk
from wavserve.core.tracing import current
from wavserve.core.types import PlanRequest
from wavserve.edge.grpc.control.robots import Robots
from wavserve.edge.http.ui.sources import StoreHealth
from wavserve.edge.recent_plans import RecentPlans
from wavserve.planning.device import Device
from wavserve.policy.golden import TOLERANCES, GoldenCheck
from wavserve.policy.parts import PolicyParts
from wavserve.policy.policy import Policy
from wavserve.policy.records import Recorder
from wavserve.policy.redis_texts import TextEncoder
from wavserve.policy.sessions import SessionStore
from wavserve.system.plan_metrics import PlanMetrics
from wavserve.system.telemetry import Metrics
from wavserve.system.vital_tasks import OnDeath, ignore_death

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Service:
    """Everything between the edges and the models, assembled."""

    policy: Policy
    sessions: OpenedStore
    metrics: Metrics
    fleet: Fleet
    robots: Robots
    noted: Noted
    close: Close
    """closes what the service holds, each part also when another one cannot be closed"""


async def assemble(
    settings: Settings,
    wrap_backend: WrapBackend = identity,
    on_death: OnDeath = ignore_death,
    metrics: Metrics | None = None,
) -> Service:
    """Opens the models and connects the parts. The caller then calls `policy.warm_up`.

    `wrap_backend` and `on_death` as in `open_fleet`, which tells what is raised. `metrics` None: of its own.
    """
    metrics = metrics or Metrics()
    recorder = None if settings.record.folder is None else Recorder(settings.record.folder)
    noted = Noted()
    async with AsyncExitStack() as opened:
        sessions = await open_store(settings, partial(_stored, metrics, noted.store))  # it may refuse, in no time
        opened.push_async_callback(sessions.close)
        fleet = await open_fleet(settings, metrics, wrap_backend, on_death)
        opened.push_async_callback(fleet.close)
        log.info("the models compute in %s", fleet.dtype)
        texts = open_texts(sessions, settings, _text_encoder(fleet), metrics.calls.stored)
        if texts is not None:
            opened.push_async_callback(texts.close)

        def share_texts(device: Device) -> None:
            device.perception.shared = texts

        fleet.placement.with_each(share_texts)  # also with Tritons that join later
        noted.store.follow(sessions.where, sessions.store.ensure_room)
        parts = _parts(settings, fleet, sessions.store, metrics, recorder, noted.plans)
        policy = Policy(replace(parts, on_death=on_death))
        opened.push_async_callback(policy.drain, 0.0)
        robots = Robots()
        _watch(metrics, fleet, sessions, policy, robots)
        return Service(policy, sessions, metrics, fleet, robots, noted, close=opened.pop_all().aclose)


def _watch(metrics: Metrics, fleet: Fleet, sessions: OpenedStore, policy: Policy, robots: Robots) -> None:
    """Has the metrics read what the parts tell of themselves."""
    metrics.describe_build(_build(fleet))
    metrics.watch_memory(fleet.memory)
    metrics.watch_lookups(fleet.lookups)
    metrics.watch_queue(lambda: fleet.queue_depth, lambda: fleet.queue_age_s)
    metrics.watch_remaining(lambda: fleet.remaining_s)
    metrics.watch_arena(lambda: fleet.slots()[0], lambda: fleet.slots()[1])
    metrics.watch_sessions(lambda: len(sessions.local))
    metrics.watch_ready(lambda: policy.ready)
    metrics.watch_plans(lambda: policy.plans_in_flight)
    metrics.watch_robots(lambda: len(robots))


def _parts(
    settings: Settings,
    fleet: Fleet,
    sessions: SessionStore,
    metrics: Metrics,
    recorder: Recorder | None,
    recent: RecentPlans,
) -> PolicyParts:
    return PolicyParts(
        spec=fleet.spec,
        digest=fleet.digest,
        placement=fleet.placement,
        sessions=sessions,
        max_plans=settings.limits.max_concurrent_plans,
        max_bytes=settings.limits.max_inflight_bytes,
        golden=_golden_check(fleet),
        version=version("wavserve"),
        keep=None if recorder is None else partial(recorder.keep, dtype=fleet.dtype),
        on_plan=partial(_observe, metrics.plans, recent),
        on_missed=lambda stage_s: metrics.plans.missed(stage_s, _trace_id()),
        on_refused=metrics.plans.refused,
        on_broken=lambda outcome, broken: metrics.plans.gated(outcome, broken.limit, broken.name),
        on_unusual=metrics.plans.unusual,
    )


def _stored(metrics: Metrics, health: StoreHealth, operation: str, outcome: str, seconds: float) -> None:
    metrics.calls.stored(operation, outcome, seconds)
    health.note(operation, outcome, seconds)


def _observe(metrics: PlanMetrics, recent: RecentPlans, chunk: ActionChunk, request: PlanRequest) -> None:
    recent.note(chunk, request)
    receipt = chunk.receipt
    metrics.answered(receipt.iterations_done, receipt.deadline.value, receipt.stage_s, _trace_id())
    if receipt.seam_jump is not None:
        metrics.seam("off" if receipt.rtc is None else receipt.rtc.mode, receipt.seam_jump)
    if receipt.iterations_done > 1 and (gain := receipt.gain) is not None:
        metrics.planned(gain, receipt.iterations[-1].video_std)


def _text_encoder(fleet: Fleet) -> TextEncoder:
    spec = fleet.spec
    return TextEncoder(fleet.digest, fleet.dtype, spec.model.video.caption_channels, spec.max_prompt_tokens)


def _trace_id() -> str:
    """Of the request that is being answered, where it is traced."""
    span = current()
    return span.context.trace_id if span.recorded and span.context is not None else ""


def _build(fleet: Fleet) -> dict[str, str]:
    return {
        "version": version("wavserve"),
        "python": platform.python_version(),
        "policy": fleet.spec.name,
        "policy_digest": fleet.digest,
        "dtype": fleet.dtype,
    }


def _golden_check(fleet: Fleet) -> GoldenCheck | None:
    if fleet.golden is None:
        log.warning("the bundle has no golden plan, so the models' plans are not checked: see wavserve bundle golden")
        return None
    return GoldenCheck(fleet.spec, fleet.golden, TOLERANCES[fleet.dtype])
