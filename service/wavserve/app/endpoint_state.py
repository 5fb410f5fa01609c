"""The state of a Triton endpoint in the words of a device: its health, its processes, its models and their memory.

Part of the composition root. Knows what a supervisor has been told, and asks nobody.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from wavserve.core.verbs import MODELS
from wavserve.planning.device import Health, ModelState

if TYPE_CHECKING:
    from wavserve.backends.triton.client import About
    from wavserve.backends.triton.health import Supervisor


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


def slots(supervisors: Iterable[Supervisor]) -> tuple[int, int]:
    """Arena slots in use and in all, as the models last reported: up to one `triton.canary_s` ago."""
    arenas = [about.arena for each in supervisors for about in each.models.about.values() if about.arena is not None]
    return sum(arena["used"] for arena in arenas), sum(arena["slots"] for arena in arenas)


def _model(model: str, up: bool, refusal: str, about: About | None) -> ModelState:
    if about is None:
        return ModelState(model, up, refusal=refusal)
    arena = None if about.arena is None else (about.arena["used"], about.arena["slots"])
    return ModelState(model, up, about.process[0], about.device, refusal, about.memory, arena)
