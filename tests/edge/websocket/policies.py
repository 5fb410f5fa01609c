"""Policies for the clients of other servers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tests.edge.fakes import RecordingPolicy, example_chunk_of
from wavserve.core.errors import UnknownSession
from wavserve.core.messages import ActionChunk
from wavserve.core.types import PlanRequest
from wavserve.scheduling.permits import Permit


@dataclass
class WholeChunks(RecordingPolicy):
    """A policy whose chunks the gate leaves whole, unless `cuts`. It does not know the sessions in `forgotten`."""

    cuts: bool = False
    forgotten: set[str] = field(default_factory=set)
    num_sessions: int = 0

    async def plan(self, request: PlanRequest, deadline: float | None, permit: Permit | None) -> ActionChunk:
        if request.session_id in self.forgotten:
            raise UnknownSession("session_id", "a session of this service", "an unknown one")
        await super().plan(request, deadline, permit)
        chunk = example_chunk_of(self.spec, request)
        if request.session_id is None:
            self.num_sessions += 1
            chunk = replace(chunk, session_id=f"session-{self.num_sessions}")
        return chunk if self.cuts else replace(chunk, cut=None)
