"""The session of a client whose protocol has none, and the refusals that such a client needs.

Every protocol of another server plans through it: the frontend is the one door. Knows no wire.
"""

from __future__ import annotations

from dataclasses import dataclass

from wavserve.core.errors import ContractMismatch, InvalidRequest, UnknownSession, UnsafeChunk
from wavserve.core.messages import ActionChunk, EncodedImage, Observation
from wavserve.edge.compat.tables import CompatConfig
from wavserve.edge.frontend import Arrival, Frontend


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignObservation:
    """An observation in a protocol of another server, unchecked. None: the request does not say."""

    images: tuple[EncodedImage, ...]
    state: tuple[float, ...]
    instruction: str | None
    executed_steps: int | None = None
    """since the previous observation"""
    num_actions: int | None = None
    """that the answer has at most; None: all"""
    forget: bool = False
    """whether the frame memory begins anew"""


class ForeignSession:
    """One session: its first observation has fresh memory, and each later one continues it.

    After a long silence the service has forgotten the session, and the next observation has fresh memory as well.
    """

    def __init__(self, frontend: Frontend, config: CompatConfig) -> None:
        self._frontend = frontend
        self._config = config
        self._session_id: str | None = None
        self._sequence = 0
        self._control_step = 0

    def check_trained(self) -> None:
        """Raises ContractMismatch for a policy with random weights, because no foreign protocol can say so."""
        if self._frontend.policy.spec.untrained and not self._config.allow_untrained:
            raise ContractMismatch("policy", "a trained policy, or compat.allow_untrained", "random weights")

    async def plan(self, sent: ForeignObservation, arrival: Arrival) -> ActionChunk:
        """Answers one observation. Raises what `Frontend.plan` raises, and UnsafeChunk for a chunk that was cut.

        A client of a foreign protocol would execute a shorter chunk as if it were whole.
        """
        self.check_trained()
        if sent.forget and self._session_id is not None:
            await self._forget()
        executed_steps = self._config.executed_steps if sent.executed_steps is None else sent.executed_steps
        self._control_step += executed_steps if self._session_id is not None else 0
        chunk = await self._answer(sent, executed_steps, arrival)
        self._session_id, self._sequence = chunk.session_id, chunk.sequence + 1
        if chunk.cut is not None:
            raise UnsafeChunk(f"{chunk.cut}; a chunk that is cut is refused here", chunk.cut)
        return chunk

    async def end(self) -> None:
        """Gives the session's place back."""
        if self._session_id is not None:
            session_id, self._session_id = self._session_id, None
            await self._frontend.end_session(session_id)

    async def _answer(self, sent: ForeignObservation, executed_steps: int, arrival: Arrival) -> ActionChunk:
        instruction = sent.instruction or self._config.instruction
        if instruction is None:
            raise InvalidRequest("prompt", "an instruction, or compat.instruction", "none")
        observation = Observation(
            images=sent.images,
            state=sent.state,
            instruction=instruction,
            session_id=self._session_id,
            sequence=self._sequence,
            control_step=self._control_step,
            executed_steps=executed_steps,
        )
        try:
            return await self._frontend.plan(observation, arrival)
        except UnknownSession:
            self._session_id = None
            return await self._answer(sent, executed_steps, arrival)

    async def _forget(self) -> None:
        try:
            await self._frontend.reset(self._session_id or "")
        except UnknownSession:
            self._session_id = None
