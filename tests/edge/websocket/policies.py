"""Policies for the clients of other servers."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field, replace

from tests.edge.fakes import RecordingPolicy, example_chunk_of
from wavserve.core.errors import UnknownSession
from wavserve.core.messages import ActionChunk
from wavserve.core.types import DeadlineResult, PlanRequest
from wavserve.planning.timings import Progress
from wavserve.scheduling.permits import Permit


@dataclass
class WholeChunks(RecordingPolicy):
    """A policy whose chunks the gate leaves whole, unless `cuts`. It does not know the sessions in `forgotten`.

    With `late` it answers after the deadline. It waits for `gate`, if there is one, before it answers.
    """

    cuts: bool = False
    late: bool = False
    gate: threading.Event | None = None
    forgotten: set[str] = field(default_factory=set)
    num_sessions: int = 0

    async def plan(
        self, request: PlanRequest, deadline: float | None, permit: Permit | None, progress: Progress | None = None
    ) -> ActionChunk:
        if request.session_id in self.forgotten:
            raise UnknownSession("session_id", "a session of this service", "an unknown one")
        await super().plan(request, deadline, permit)
        if self.gate is not None:
            await asyncio.to_thread(self.gate.wait, 30)
        chunk = example_chunk_of(self.spec, request)
        if self.late:
            chunk = replace(chunk, receipt=replace(chunk.receipt, deadline=DeadlineResult.LATE, slack_s=-0.25))
        if request.session_id is None:
            self.num_sessions += 1
            chunk = replace(chunk, session_id=f"session-{self.num_sessions}")
        return chunk if self.cuts else replace(chunk, cut=None)
