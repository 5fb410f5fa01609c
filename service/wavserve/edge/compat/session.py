"""The session of a client whose protocol has none, and the refusals that such a client needs.

Every protocol of another server plans through it: the frontend is the one door. Knows no wire.
"""

from __future__ import annotations

from dataclasses import dataclass

from wavserve.core.errors import (
    ContractMismatch,
    DeadlineExceeded,
    InvalidRequest,
    OutcomeUnknown,
    SequenceConflict,
    UnknownSession,
    UnsafeChunk,
    WavserveError,
    shown,
)
from wavserve.core.messages import ActionChunk, EncodedImage, Observation
from wavserve.core.types import DeadlineResult
from wavserve.edge.compat.tables import CompatConfig
from wavserve.edge.frontend import Arrival, Frontend

RESET = "<reset>"
"""In a prompt of the authors' websocket client: the memory begins anew. It is no instruction."""


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

    The memory holds only what the client got. After a plan that the service may have and the client has not, and after
    a long silence, the next observation has fresh memory as well.
    """

    def __init__(self, frontend: Frontend, config: CompatConfig) -> None:
        self._frontend = frontend
        self._config = config
        self._session_id: str | None = None
        self._num_asked = 0
        self._control_step = 0
        self._num_given: int | None = None  # actions in the last answer; None: the memory is fresh
        self._to_forget = False
        self._ended = False

    def check_trained(self) -> None:
        """Raises ContractMismatch for a policy with random weights, because no foreign protocol can say so."""
        if self._frontend.policy.spec.untrained and not self._config.allow_untrained:
            raise ContractMismatch("policy", "a trained policy, or compat.allow_untrained", "random weights")

    async def plan(self, sent: ForeignObservation, arrival: Arrival) -> ActionChunk:
        """Answers one observation. Raises what `Frontend.plan` raises, InvalidRequest for steps that no answer had, and
        SequenceConflict when the session ends meanwhile.

        Raises UnsafeChunk for a chunk that was cut, and DeadlineExceeded for one that is late: a client of a foreign
        protocol would execute it as if it were whole and in time.
        """
        self.check_trained()
        if sent.forget or self._to_forget:
            await self._forget()
        executed_steps = self._executed_steps(sent)
        control_step = self._control_step + (executed_steps if self._session_id is not None else 0)
        self._to_forget = True
        try:
            chunk = await self._answer(sent, executed_steps, control_step, arrival)
        except WavserveError as error:
            self._to_forget = isinstance(error, OutcomeUnknown)  # otherwise the session is as it was
            raise
        await self._check(chunk)
        self._to_forget = False
        self._session_id, self._control_step = chunk.session_id, control_step
        self._num_given = len(chunk.actions[: sent.num_actions])
        return chunk

    async def end(self) -> None:
        """Gives the session's place back. A plan that is under way is not answered."""
        self._ended = True
        if self._session_id is not None:
            session_id, self._session_id = self._session_id, None
            await self._frontend.end_session(session_id)

    def _executed_steps(self, sent: ForeignObservation) -> int:
        """Steps since the previous observation. A client can have executed no more than it got."""
        if sent.executed_steps is None:
            return self._config.executed_steps
        horizon = self._frontend.policy.spec.chunk
        if sent.executed_steps > horizon:
            raise InvalidRequest("execution_step", f"at most {horizon}, the policy's horizon", sent.executed_steps)
        if self._num_given is not None and sent.executed_steps > self._num_given:
            most = f"at most {self._num_given}, the actions of the last answer"
            raise InvalidRequest("execution_step", most, sent.executed_steps)
        return sent.executed_steps

    async def _answer(
        self, sent: ForeignObservation, executed_steps: int, control_step: int, arrival: Arrival
    ) -> ActionChunk:
        instruction = sent.instruction or self._config.instruction
        if instruction is None:
            raise InvalidRequest("prompt", "an instruction, or compat.instruction", "none")
        if RESET in instruction:
            raise InvalidRequest(
                "prompt", f"an instruction; only the form with obs resets by {RESET}", shown(instruction)
            )
        observation = Observation(
            images=sent.images,
            state=sent.state,
            instruction=instruction,
            session_id=self._session_id,
            sequence=self._num_asked,
            control_step=control_step,
            executed_steps=executed_steps,
        )
        self._num_asked += 1
        try:
            return await self._frontend.plan(observation, arrival)
        except UnknownSession:
            if self._ended:
                raise _ended_meanwhile() from None
            self._session_id = None
            return await self._answer(sent, executed_steps, control_step, arrival)

    async def _check(self, chunk: ActionChunk) -> None:
        """Raises why a chunk that the service has made is not answered."""
        if self._ended:
            await self._frontend.end_session(chunk.session_id)
            raise _ended_meanwhile()
        self._session_id = chunk.session_id
        if chunk.cut is not None:
            raise UnsafeChunk(f"{chunk.cut}; a chunk that is cut is refused here", chunk.cut)
        if chunk.receipt.deadline is DeadlineResult.LATE:
            raise DeadlineExceeded("the plan was made in time, and the service was held up before it could answer")

    async def _forget(self) -> None:
        self._to_forget = True
        self._num_given = None
        if self._session_id is not None:
            try:
                await self._frontend.reset(self._session_id)
            except UnknownSession:
                self._session_id = None
        self._to_forget = False


def _ended_meanwhile() -> SequenceConflict:
    return SequenceConflict("session", "no reset while a plan is made", "one")
