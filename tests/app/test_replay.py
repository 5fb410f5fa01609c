"""Replaying a record on models other than those it was made with."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.planning.rig import RigOptions, example_request, rigged
from wavserve.app.replay import replay_on
from wavserve.core.errors import BundleError
from wavserve.core.messages import ActionChunk
from wavserve.core.types import PlanRequest
from wavserve.policy import records
from wavserve.policy.sessions import Session


@pytest.mark.parametrize(
    ("digest", "dtype", "words"),
    [
        ("another", "float32", "was made with policy another, this bundle is served"),
        ("served", "bfloat16", "was made in bfloat16, the models here compute in float32"),
    ],
)
async def test_a_record_of_other_models_is_refused(digest: str, dtype: str, words: str) -> None:
    service: Any = SimpleNamespace(policy=SimpleNamespace(digest="served"), fleet=SimpleNamespace(dtype="float32"))
    record: Any = SimpleNamespace(policy_digest=digest, dtype=dtype)
    with pytest.raises(BundleError, match=words):
        await replay_on(service, record)


async def test_a_service_makes_many_recorded_plans_again(tmp_path: Path) -> None:
    """Each from its own session: no replay sees the memory of an earlier one, and none leaves a session behind."""

    kept: asyncio.Queue[Path] = asyncio.Queue()

    async def keep(request: PlanRequest, before: Session, chunk: ActionChunk) -> None:
        path = tmp_path / f"{chunk.sequence}.safetensors"
        records.save(path, request, before, chunk, "float32")
        kept.put_nowait(path)

    async with rigged(RigOptions(keep=keep)) as rig:
        chunks: list[ActionChunk] = []
        for sequence in range(3):
            request = example_request(rig.spec, sequence, sequence=sequence, options={"warm_start": True})
            session_id = chunks[-1].session_id if chunks else None
            chunks.append(await rig.policy.plan(replace(request, session_id=session_id, executed_steps=sequence)))
        fleet, sessions = SimpleNamespace(dtype="float32"), SimpleNamespace(store=rig.sessions)
        service: Any = SimpleNamespace(policy=rig.policy, fleet=fleet, sessions=sessions)
        for path in [await kept.get() for _ in chunks] * 2:
            assert (await replay_on(service, records.load(path))).identical
        assert len(rig.sessions) == 1
