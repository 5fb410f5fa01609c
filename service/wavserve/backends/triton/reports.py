"""What the models of one endpoint report of themselves when they are asked, and whether plans may use them.

Knows descriptions, and nothing of when a model is asked and of how it is repaired.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from wavserve.backends.triton.client import About, TritonBackend
from wavserve.core.errors import ModelDown, SettingsError
from wavserve.core.verbs import ARENA_OWNER, MODELS
from wavserve.system.processes import Process
from wavserve.system.stalls import MIN_LIMIT_S, RunTime, answered_within

log = logging.getLogger(__name__)


class ModelReports:
    """The models of the endpoint `name`. `on_change` receives a model whose state changed, and whether it is up."""

    def __init__(self, name: str, on_change: Callable[[str, bool], None] = lambda model, up: None) -> None:
        self.about: dict[str, About] = {}
        """the last description of each model"""
        self._name = name
        self._on_change = on_change
        self._up = dict.fromkeys(MODELS, False)
        self._refused: dict[str, str] = {}
        """models of another version, each with the reason that the log has"""
        self._expected: str | None = None
        self._slice_size = 1

    @property
    def up(self) -> bool:
        """Whether every model answered the last time it was asked."""
        return all(self._up.values())

    @property
    def serves_wrong_policy(self) -> bool:
        """Whether a model that is up serves another policy than the expected one."""
        if self._expected is None:
            return False
        return any(self._up[model] and about.digest != self._expected for model, about in self.about.items())

    @property
    def num_slots(self) -> int | None:
        """Slots of the arena; None until its owner has answered."""
        arena = self.about[ARENA_OWNER].arena if ARENA_OWNER in self.about else None
        return None if arena is None else arena["slots"]

    @property
    def fits(self) -> bool:
        """Whether a slice fits the arena; a slice that does not fit would wait forever."""
        return self.num_slots is None or self.num_slots >= self._slice_size

    def expect(self, digest: str, slice_size: int) -> None:
        """Sets the digest of the policy that the models must serve, and the number of slots that a slice takes."""
        self._expected, self._slice_size = digest, slice_size
        for about in self.about.values():
            self._warn_about(about)

    def process_of(self, model: str) -> Process | None:
        """The process of a model that is up; None while it is down, because it may be replaced then."""
        return self.last_process(model) if self._up[model] else None

    def last_process(self, model: str) -> Process | None:
        """The process that answered last; None: none has."""
        return Process(*self.about[model].process) if model in self.about else None

    def is_up(self, model: str) -> bool:
        return self._up[model]

    def refusal(self, model: str) -> str:
        """Why a model that answers is not used; empty: it is used, or does not answer."""
        return self._refused.get(model, "")

    def is_refused(self, model: str) -> bool:
        """Whether the model answered and has another version."""
        return model in self._refused

    def record(self, about: About) -> None:
        """A model of this version answered."""
        known = self.about.get(about.model)
        self.about[about.model] = about
        self._refused.pop(about.model, None)
        if known is None or known.process != about.process:
            self._warn_about(about)
        self._set_up(about.model, True)

    def refuse(self, model: str, error: SettingsError) -> None:
        """A model of another version answered: it counts as down. The log says so once."""
        if self._refused.get(model) != error.message:
            self._refused[model] = error.message
            log.error("%s", error.message)
        self.mark_down(model)

    def no_answer(self, model: str) -> None:
        """A model did not answer; of which version it will be is not known any more."""
        self._refused.pop(model, None)
        self.mark_down(model)

    def mark_down(self, model: str) -> None:
        self._set_up(model, False)

    def _set_up(self, model: str, up: bool) -> None:
        if self._up[model] != up:
            self._up[model] = up
            self._on_change(model, up)

    def _warn_about(self, about: About) -> None:
        """Logs why an endpoint gets no plans although its models answer."""
        if self._expected not in (None, about.digest):
            digests = (str(self._expected)[:16], about.digest[:16])
            log.error(
                "%s: %s serves another policy, expected %s, got %s: no plans are accepted",
                self._name,
                about.model,
                *digests,
            )
        if about.arena is not None and about.arena["slots"] < self._slice_size:
            slots = (self._slice_size, about.arena["slots"])
            log.error("%s: expected at least %d arena slots (one slice), got %d: it gets no plans", self._name, *slots)


async def ask(endpoint: str, backend: TritonBackend, model: str, hang_s: float) -> About:
    """Asks a model to describe itself. Raises SettingsError when its verb table differs from ours, and what the call
    raises."""
    about = await backend.describe(model, hang_s)
    about.check_verbs(endpoint)
    return about


async def ask_soon(endpoint: str, backend: TritonBackend, model: str, hang_s: float, process: Process | None) -> About:
    """As `ask`, for a model that only we use. Raises ModelDown as soon as it stands still. `process`: see `RunTime`.

    The call may wait behind our other calls; only the time in which there are none counts.
    """
    asking, limit_s = asyncio.create_task(ask(endpoint, backend, model, hang_s)), min(MIN_LIMIT_S, hang_s)
    run_time = RunTime(lambda: process)

    def counted(seconds: float) -> float:
        could_run_s = run_time.of(seconds)
        return could_run_s if backend.is_idle() else 0.0

    try:
        if await answered_within(asking, limit_s, counted):
            return asking.result()
        raise ModelDown(f"{model}: no answer to a test call for {limit_s:.1f} s")
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
