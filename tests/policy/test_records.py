"""Records on disk: a damaged one is named as such, and what could not be written leaves nothing behind."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from tests.planning.rig import MakeRig, RigOptions, example_request
from wavserve.core.errors import BundleError
from wavserve.core.messages import ActionChunk
from wavserve.core.types import PlanRequest
from wavserve.policy import records
from wavserve.policy.sessions import Session


@pytest.fixture
async def kept(make_rig: MakeRig) -> list[Any]:
    """What a service hands over to be kept: of the second plan of a session."""
    handed: list[tuple[PlanRequest, Session, ActionChunk]] = []

    async def keep(*plan: Any) -> None:
        handed.append(plan)

    rig = await make_rig(RigOptions(keep=keep))
    first = await rig.policy.plan(example_request(rig.spec))
    await rig.policy.plan(example_request(rig.spec, session_id=first.session_id, sequence=1, executed_steps=1))
    await rig.policy.drain()
    return [*handed[-1], "float32"]


async def test_a_damaged_record_is_refused_whatever_is_damaged(kept: list[Any], tmp_path: Path) -> None:
    path = tmp_path / "record.safetensors"
    records.save(path, *kept)
    assert records.load(path).last is not None
    with safe_open(path, framework="np") as file:
        facts = json.loads(file.metadata()["wavserve"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    damaged: list[tuple[object, dict[str, Any]]] = [
        *(({key: fact for key, fact in facts.items() if key != name}, tensors) for name in ("request", "last", "seed")),
        *((facts, {key: each for key, each in tensors.items() if key != name}) for name in ("state", "last.video")),
        ({**facts, "request": {**facts["request"], "unknown": 1}}, tensors),
        ({**facts, "request": 3}, tensors),
        ([], tensors),
    ]
    for damaged_facts, damaged_tensors in damaged:
        save_file(damaged_tensors, path, metadata={"wavserve": json.dumps(damaged_facts)})
        with pytest.raises(BundleError, match=r"record\.safetensors: expected"):
            records.load(path)
    save_file(tensors, path, metadata={"wavserve": "{"})
    with pytest.raises(BundleError, match=r"record\.safetensors: expected"):
        records.load(path)


async def test_a_record_that_cannot_be_written_leaves_nothing_behind(kept: list[Any], tmp_path: Path) -> None:
    """Else a full disk would stay full."""
    path = tmp_path / "record.safetensors"
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        records.save(path, *kept)
    assert os.listdir(tmp_path) == [path.name]
