"""Makes a recorded plan again and compares the actions. Equal actions prove that the record is complete.

An in-process service is assembled around the bundle, with the session as it was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from wavserve.app.service import Service, assemble
from wavserve.app.settings import SessionSettings, Settings
from wavserve.core.errors import BundleError
from wavserve.core.types import Array
from wavserve.policy import records
from wavserve.policy.sessions import Session


@dataclass(frozen=True, slots=True)
class Replay:
    """The actions of a recorded plan and of its replay, each `[T, A]`."""

    recorded: Array
    replayed: Array

    @property
    def max_error(self) -> float:
        """Infinite when the two have different numbers of steps."""
        if self.recorded.shape != self.replayed.shape:
            return math.inf
        return float(np.abs(self.recorded - self.replayed).max())

    @property
    def identical(self) -> bool:
        return np.array_equal(self.recorded, self.replayed)


async def replay(record_file: Path, settings: Settings) -> Replay:
    """Plans again from a record, in its dtype. Raises BundleError when the models have another policy or dtype."""
    record = records.load(record_file)
    service = await assemble(_as_recorded(settings, record))
    service.policy.skip_warm_up()
    try:
        return await replay_on(service, record)
    finally:
        await service.close()


def _as_recorded(settings: Settings, record: records.Record) -> Settings:
    """The settings with the record's dtype, and no shared sessions. `auto` becomes `local`: a single plan needs no
    server."""
    backend = settings.backend
    kind = "local" if backend.kind == "auto" else backend.kind
    changed = backend.model_copy(update={"kind": kind, "dtype": record.dtype or backend.dtype})
    return settings.model_copy(update={"backend": changed, "sessions": SessionSettings()})


async def replay_on(service: Service, record: records.Record) -> Replay:
    """Plans again on a service that runs already. Raises BundleError when it has another policy or dtype."""
    digest = service.policy.digest
    if record.policy_digest != digest:
        raise BundleError(f"the record was made with policy {record.policy_digest[:16]}, this bundle is {digest[:16]}")
    if record.dtype not in (None, computed := service.fleet.dtype):  # possible with a running Triton
        raise BundleError(f"the record was made in {record.dtype}, the models here compute in {computed}")
    session = replace(Session.fresh(digest), memory=record.memory, last=record.last)
    await service.sessions.store.commit(session)
    try:
        result = await service.policy.plan(replace(record.request, session_id=session.id))
    finally:
        await service.policy.end_session(session.id)
    return Replay(record.actions, result.actions)
