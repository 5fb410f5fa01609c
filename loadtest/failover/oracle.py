"""What every answer should have been, from a lone policy in this process that nobody kills.

Unary requests: the accepted observations of a robot, sent again in one session. Streams: the recorded plans, made again
from the session as it was. In both cases with the iterations that were spent.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from time import monotonic_ns
from typing import Any, TypeVar

import numpy as np

from loadtest.failover.fleet import Answer
from wavserve.app.edges import edge_limits
from wavserve.app.replay import replay_on
from wavserve.app.service import Service
from wavserve.app.settings import LimitSettings
from wavserve.core.errors import WavserveError
from wavserve.core.messages import ActionChunk, Observation
from wavserve.core.types import Array
from wavserve.edge.frontend import Arrival, Frontend
from wavserve.policy import records

TOLERANCE = 1e-5
"""Largest difference of an action from its oracle, in the policy's units."""

AT_ONCE = 8
"""Plans that are made again at a time."""
PATIENCE_S = 300.0
"""How long the same plan is tried. On a machine with much other work a call may count as stuck."""
RETRY_S = 1.0

T = TypeVar("T")
Recorded = Mapping[tuple[str, int], Path]


@dataclass(slots=True)
class Verdict:
    """What the comparison found."""

    num_alone: int = 0
    """answers compared with those of a lone robot"""
    num_replayed: int = 0
    """answers whose recorded plan was made again"""
    worst: float = 0.0
    """largest difference of an action"""
    wrong: list[str] = field(default_factory=list)
    unrecorded: list[Answer] = field(default_factory=list)
    """answers that should have a record, and have none"""

    def compare(self, answer: Answer, expected: Array, what: str) -> None:
        actions = answer.chunk.actions
        same = actions.shape == expected.shape
        error = float(np.abs(actions - expected).max()) if same else float("inf")
        self.worst = max(self.worst, error)
        if not error <= TOLERANCE:
            chunk = answer.chunk
            where = f"{answer.role.name}, session {answer.session}, sequence {chunk.sequence}, epoch {chunk.epoch}"
            self.wrong.append(f"{where}: {error:.2g} from {what}")


class Oracle:
    """A lone policy, assembled in this process."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._frontend = Frontend(service.policy, edge_limits(LimitSettings()))

    async def judge(self, answers: Sequence[Answer], recorded: Recorded) -> Verdict:
        """Compares every answer."""
        verdict = Verdict()
        unary = [answer for answer in answers if answer.observation is not None]
        sessions = [list(of_one) for _, of_one in itertools.groupby(sorted(unary, key=_session), key=_session)]
        streams = [answer for answer in answers if answer.observation is None]
        await _few_at_once(self._alone(of_one, verdict) for of_one in sessions)
        await _few_at_once(self._replayed(answer, recorded, verdict) for answer in streams)
        return verdict

    async def _alone(self, answers: Iterable[Answer], verdict: Verdict) -> None:
        """Sends the observations of one session again, in their order."""
        session_id = None
        for answer in answers:
            assert answer.observation is not None, "of a unary request"
            options = dict(answer.observation.options)
            if answer.role.deadline_ms is not None:
                options["num_iterations"] = answer.chunk.receipt.iterations_done
            again = replace(answer.observation, session_id=session_id, options=options, deadline_ms=None)
            chunk = await _patiently(partial(self._plan, again, answer.role.name))
            session_id = chunk.session_id
            verdict.compare(answer, chunk.actions, "the lone robot's")
            verdict.num_alone += 1

    async def _plan(self, observation: Observation, sender: str) -> ActionChunk:
        return await self._frontend.plan(observation, Arrival(monotonic_ns(), sender=sender))

    async def _replayed(self, answer: Answer, recorded: Recorded, verdict: Verdict) -> None:
        path = recorded.get((answer.chunk.session_id, answer.chunk.sequence))
        if path is None:
            verdict.unrecorded.append(answer)
            return
        replay = await _patiently(lambda: replay_on(self._service, records.load(path)))
        verdict.compare(answer, replay.recorded, "its record")
        verdict.compare(answer, replay.replayed, "its replay")
        verdict.num_replayed += 1


async def _few_at_once(comparisons: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Makes all comparisons. Raises the first error."""
    places = asyncio.Semaphore(AT_ONCE)

    async def placed(comparison: Coroutine[Any, Any, None]) -> None:
        async with places:
            await comparison

    await asyncio.gather(*map(placed, comparisons))


async def _patiently(make: Callable[[], Awaitable[T]]) -> T:
    """What `make` returns. Makes it again after errors that a retry may mend."""
    give_up = time.monotonic() + PATIENCE_S
    while True:
        try:
            return await make()
        except WavserveError as error:
            if not error.retryable or time.monotonic() > give_up:
                raise
        await asyncio.sleep(RETRY_S)


def recorded_plans(folders: Iterable[Path]) -> tuple[dict[tuple[str, int], Path], list[str]]:
    """The records of all gateways by session and sequence, and the names of plans that more than one committed."""
    paths = [path for folder in folders for path in folder.glob("*.safetensors")]
    twice = [name for name, count in Counter(path.name for path in paths).items() if count > 1]
    found = {}
    for path in paths:
        session_id, _, sequence = path.stem.rpartition("-")
        found[session_id, int(sequence)] = path
    return found, twice


def _session(answer: Answer) -> tuple[str, int]:
    return answer.role.name, answer.session
