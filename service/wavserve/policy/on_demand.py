"""Imagined frames of a session's last plan, for an onlooker: one at a time, and only while no plan runs.

A plan that begins ends the imagining at once, so no robot waits for an onlooker. Knows no page and no wire.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import numpy as np

from wavserve.core.errors import InvalidRequest, NotReady, Overloaded, UnknownSession
from wavserve.core.messages import EncodedImage
from wavserve.core.spec import PolicySpec
from wavserve.core.types import TextEmbedding
from wavserve.planning.model_calls import PlanJob
from wavserve.planning.proposal import NamedNoise
from wavserve.policy.imagined import imagine_frames
from wavserve.policy.placement import Placement
from wavserve.policy.running import Activity
from wavserve.policy.sessions import FrameMemory, LastPlan, SessionStore
from wavserve.scheduling.ledger import Ticket

Frames = Mapping[str, tuple[EncodedImage, ...]]

WITHIN_S = 10.0
"""How long an onlooker waits for a gap between plans, and for the frames."""
MAX_ATTEMPTS = 5
"""Attempts that plans may end. Each of them took time that a plan's first call may have had to wait for."""


class FramesOnDemand:
    """Imagines what a plan that was answered expects to see."""

    def __init__(
        self,
        spec: PolicySpec,
        placement: Placement,
        sessions: SessionStore,
        activity: Activity,
        within_s: float = WITHIN_S,
    ) -> None:
        self._spec = spec
        self._placement = placement
        self._sessions = sessions
        self._activity = activity
        self._within_s = within_s
        self._is_busy = False
        self._draining = asyncio.Event()

    async def of(self, session_id: str, instruction: str) -> Frames:
        """Camera -> future frames of the session's last plan, which was made for `instruction`.

        They equal those that the plan itself would have imagined. Raises Overloaded when other frames are being
        imagined and when plans leave no time, NotReady, UnknownSession, InvalidRequest when the session has another
        plan, and BackendError.
        """
        if self._is_busy:
            raise Overloaded("frames of a plan are being imagined already, and they are imagined one plan at a time")
        self._is_busy = True
        try:
            async with asyncio.timeout(self._within_s):
                for _ in range(MAX_ATTEMPTS):
                    await self._until(self._activity.idle)
                    frames = await self._between_plans(session_id, instruction)
                    if frames is not None:
                        return frames
        except TimeoutError:
            pass
        finally:
            self._is_busy = False
        raise Overloaded("plans come first, and they left no time for it")

    def drain(self) -> None:
        """Ends what is being imagined, once and for all."""
        self._draining.set()

    async def _until(self, event: asyncio.Event) -> None:
        """Waits for an event. Raises NotReady when the service stops first."""
        waits = [asyncio.create_task(each.wait()) for each in (event, self._draining)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()
        if self._draining.is_set():
            raise NotReady("the service stops")

    async def _between_plans(self, session_id: str, instruction: str) -> Frames | None:
        """The frames; None when a plan began first."""
        work = asyncio.create_task(self._imagine(session_id, instruction))
        plan = asyncio.create_task(self._until(self._activity.busy))
        try:
            await asyncio.wait((work, plan), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            plan.result()
            return None
        finally:
            for each in (work, plan):
                each.cancel()
            await asyncio.gather(work, plan, return_exceptions=True)

    async def _imagine(self, session_id: str, instruction: str) -> Frames:
        memory, last = await self._last_plan(session_id, instruction)
        choices = self._placement.choices()
        if not choices or last.chunk is None:
            raise NotReady("no device with working models; they are being repaired")
        device = choices[0]
        receipt = last.chunk.receipt
        # without a place in the ledger it goes last
        ticket = Ticket(alone=receipt.config.fixed_shapes, yields=True)
        job = PlanJob(
            memory=memory.frames,
            text=await device.perception.encode_text(instruction, ticket),
            history=np.zeros(self._spec.model.action.in_channels, np.float32),  # of actions, which are not decoded
            config=receipt.config,
            noise=NamedNoise((receipt.seed, receipt.sequence)),
            imagine_chunks=1,
            ticket=ticket,
        )
        return await imagine_frames(device.planner.calls, device.perception, job, last.video)

    async def _last_plan(self, session_id: str, instruction: str) -> tuple[FrameMemory, LastPlan]:
        session = await self._sessions.peek(session_id)
        if session is None:
            raise UnknownSession("session", "a session with a plan", "one that has expired or ended")
        if session.memory is None or session.last is None:
            raise InvalidRequest("session", "a session with a plan", "one that was reset")
        if session.last.instruction != TextEmbedding.key_of(instruction).hex():
            raise InvalidRequest("instruction", "that of the session's last plan", "another one: there is a newer plan")
        return session.memory, session.last
