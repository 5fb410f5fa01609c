"""The Triton endpoints of a fleet: their supervisors, what the first one reports, and the states of all.

Part of the composition root. Triton's client is imported where a supervisor is made, because a service with its models
in its own process does not need it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from wavserve.app.settings import TritonSettings
from wavserve.bundle.golden import Golden, unpack
from wavserve.core.errors import SettingsError, WavserveError
from wavserve.core.spec import PolicySpec
from wavserve.core.verbs import ARENA_OWNER, MODELS
from wavserve.planning.device import Health, ModelState
from wavserve.system.telemetry import Metrics
from wavserve.system.vital_tasks import OnDeath

if TYPE_CHECKING:
    from wavserve.backends.triton.client import About
    from wavserve.backends.triton.health import Supervisor
    from wavserve.backends.triton.server import TritonServer

log = logging.getLogger(__name__)

CONNECT_RETRY_S = 1.0
"""Pause before a Triton that has not answered yet is asked again."""
GOLDEN_S = 30.0
"""Seconds within which a Triton must send its golden plan."""


def supervisors_of(
    settings: TritonSettings,
    metrics: Metrics,
    servers: Mapping[str, TritonServer | None],
    on_health: Callable[[], None],
    on_death: OnDeath,
) -> list[Supervisor]:
    """A supervisor for each endpoint, over a backend of its own. None is started yet."""
    from wavserve.backends.triton.client import TritonBackend
    from wavserve.backends.triton.health import Supervisor, WatchConfig

    watch = WatchConfig(
        canary_s=settings.canary_s, hang_s=settings.hang_s, load_s=settings.load_s, max_repairs=settings.max_repairs
    )

    def on_traffic(verb: str, sent: Mapping[str, int], received: Mapping[str, int]) -> None:
        metrics.calls.sent(verb, sum(sent.values()), sum(received.values()))

    def watched(name: str, server: TritonServer | None) -> Supervisor:
        def on_change(model: str, up: bool) -> None:
            metrics.calls.model(name, model, up)
            on_health()

        target = name if server is None else None  # an embedded server has no address before it starts
        backend = TritonBackend(target, on_traffic=on_traffic, proxy=settings.proxy)
        supervisor = Supervisor(name, backend, watch, server, on_change, on_death)
        supervisor.on_repair = partial(metrics.calls.repaired, name)
        return supervisor

    return [watched(name, server) for name, server in servers.items()]


async def first_up(supervisors: Sequence[Supervisor], within_s: float) -> About:
    """Starts the supervisors and returns the first description that a Triton reports. The others are watched.

    Raises the error of our own server when it does not start. Retries other Tritons until one answers, and raises the
    error of one after `within_s` seconds.
    """
    loop = asyncio.get_running_loop()
    until, answered = loop.time() + within_s, None
    pending = list(supervisors)
    while pending:
        for each in list(pending):
            try:
                await each.start()
                answered = answered or each.models.about[ARENA_OWNER]
            except SettingsError:
                raise  # waiting changes neither our settings nor the version of Triton
            except WavserveError as error:
                if each.owns_server or loop.time() > until:
                    raise
                log.info("waiting for Triton: %s", error.message)
                continue
            pending.remove(each)
        if answered is not None:
            break
        await asyncio.sleep(CONNECT_RETRY_S)
    for each in pending:
        each.watch()
    assert answered is not None
    return answered


async def golden_of(supervisors: Sequence[Supervisor], about: About, spec: PolicySpec) -> Golden | None:
    """The golden plan of the models that gave this description."""
    for each in supervisors:
        known = each.models.about.get(ARENA_OWNER)
        if known is not None and known.golden_digest == about.golden_digest != "":
            return unpack(await each.backend.golden(GOLDEN_S), spec)
    return None


def stop_repairs(supervisors: Sequence[Supervisor]) -> None:
    for each in supervisors:
        each.drain()


def health(supervisor: Supervisor) -> Health:
    if supervisor.models.serves_wrong_policy:
        return Health.WRONG_POLICY
    return Health.UP if supervisor.models.up and supervisor.models.fits else Health.DOWN


def generation(supervisor: Supervisor) -> object:
    """The processes of an endpoint's models."""
    return {model: about.process for model, about in supervisor.models.about.items()}


def models(supervisor: Supervisor) -> tuple[ModelState, ...]:
    """The models of an endpoint, as each last reported: up to one `triton.canary_s` ago."""
    reports = supervisor.models
    return tuple(
        _model(model, reports.is_up(model), reports.refusal(model), reports.about.get(model)) for model in MODELS
    )


def _model(model: str, up: bool, refusal: str, about: About | None) -> ModelState:
    if about is None:
        return ModelState(model, up, refusal=refusal)
    arena = None if about.arena is None else (about.arena["used"], about.arena["slots"])
    return ModelState(model, up, about.process[0], about.device, refusal, about.memory, arena)


def slots(supervisors: Sequence[Supervisor]) -> tuple[int, int]:
    """Arena slots in use and in all, as the models last reported: up to one `triton.canary_s` ago."""
    arenas = [about.arena for each in supervisors for about in each.models.about.values() if about.arena is not None]
    return sum(arena["used"] for arena in arenas), sum(arena["slots"] for arena in arenas)
