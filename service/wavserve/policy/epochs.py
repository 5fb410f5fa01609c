"""Epochs of a session: a robot's stream begins one at its Hello and at each reset.

An epoch is raised by compare-and-set, as a plan is committed. So no gateway that shares the store can commit a plan of
an older epoch. Knows no stream and no wire.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

from wavserve.core.errors import InvalidRequest, OutcomeUnknown, SequenceConflict, StaleEpoch, UnknownSession
from wavserve.core.types import Clock
from wavserve.policy.commits import commit, uninterrupted
from wavserve.policy.sessions import CommitResult, Session, SessionStore

RESUME_WITHIN_S = 10.0
"""How long after the end of its stream a session can be resumed: later its frame memory shows another scene."""
_MAX_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class OpenedSession:
    """A session at the beginning of an epoch."""

    session_id: str
    epoch: int
    next_sequence: int
    """the smallest sequence number that it takes"""
    resumed: bool
    """whether it has the memory of an earlier stream"""


class Epochs:
    """Begins epochs of the sessions of one policy."""

    def __init__(self, sessions: SessionStore, digest: str, unix_clock: Clock = time.time) -> None:
        """`digest`: of the policy. `unix_clock`: seconds since 1970, which gateways share."""
        self._sessions = sessions
        self._digest = digest
        self._unix_clock = unix_clock

    async def open(self, robot_id: str, resume: str | None, silent_s: float | None) -> OpenedSession:
        """Resumes a session in a new epoch, or opens a fresh one.

        `silent_s`: seconds since the session's stream ended on this gateway; None: it had none. The session's last
        commit counts as well: another gateway may have had it since. Raises Overloaded, OutcomeUnknown and
        SequenceConflict.
        """
        for _ in range(_MAX_ATTEMPTS):
            found = await self._resumable(robot_id, resume, silent_s)
            if found is None:
                await self._sessions.ensure_room(robot_id)
            session = found or replace(Session.fresh(self._digest), robot_id=robot_id)
            if (opened := await self._raise(session, resumed=found is not None)) is not None:
                return opened
        raise _busy("resume_session_id")

    async def reset(self, session_id: str, epoch: int) -> OpenedSession:
        """Forgets the session's memory and begins its next epoch.

        Raises StaleEpoch unless `epoch` is its present one, UnknownSession, OutcomeUnknown and SequenceConflict.
        """
        for _ in range(_MAX_ATTEMPTS):
            session = await self._sessions.load(session_id)
            if session is None:
                raise UnknownSession("session_id", "a session of this service (it expires when idle)", "an unknown one")
            check_epoch(session, epoch)
            if (opened := await self._raise(session.forget(), resumed=False)) is not None:
                return opened
        raise _busy("session_id")

    async def _resumable(self, robot_id: str, resume: str | None, silent_s: float | None) -> Session | None:
        """The session, if it is the robot's, of this policy, and fresh enough."""
        session = None if resume is None else await self._sessions.load(resume)
        if session is None or (session.robot_id, session.policy_digest) != (robot_id, self._digest):
            return None
        committed_ago_s = self._unix_clock() - session.committed_s
        silent_s = committed_ago_s if silent_s is None else min(committed_ago_s, silent_s)
        return session if silent_s <= RESUME_WITHIN_S else None

    async def _raise(self, session: Session, resumed: bool) -> OpenedSession | None:
        """The session in its next epoch; None when it was changed meanwhile."""
        begun = replace(session, epoch=session.epoch + 1)
        match await uninterrupted(commit(self._sessions, begun, math.inf, self._unix_clock)):
            case CommitResult.CHANGED:
                return None
            case CommitResult.UNKNOWN:
                raise OutcomeUnknown("the session store did not say whether the epoch has begun: try again")
        return OpenedSession(begun.id, begun.epoch, begun.last_sequence + 1, resumed)


def check_epoch(session: Session, epoch: int | None) -> None:
    """Raises StaleEpoch unless the session is in this epoch.

    `epoch` None: the request came on no stream. Raises InvalidRequest for a session that a stream has opened, because
    its plan would be committed between those of the stream.
    """
    if epoch is None and session.epoch:
        raise InvalidRequest("session_id", "a session that no robot's stream has opened", "one of a stream")
    if epoch is not None and epoch > session.epoch:
        raise StaleEpoch("epoch", f"{session.epoch}, because the session store has lost the later ones", epoch)
    if epoch is not None and epoch != session.epoch:
        raise StaleEpoch("epoch", f"{session.epoch}, which a newer stream or reset began", epoch)


def next_epoch(session: Session) -> Session:
    """The session in a new epoch, if it has epochs."""
    return replace(session, epoch=session.epoch + 1) if session.epoch else session


def _busy(field: str) -> SequenceConflict:
    return SequenceConflict(field, "an unchanged session", "plans were committed in it meanwhile; try again")
