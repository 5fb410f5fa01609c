"""The golden plan as it is made: reproducible, stored once, and equal to what the paths that serve robots make."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from wavserve.app.service import assemble
from wavserve.app.settings import Settings
from wavserve.bundle import bundle, golden
from wavserve.bundle.bundle import Bundle
from wavserve.core.errors import BundleError, NotReady
from wavserve.models.golden import add_golden, make_golden
from wavserve.models.weights.checkpoint import FILE


@pytest.fixture
def copied(tiny_piper: Bundle, tmp_path: Path) -> Path:
    shutil.copytree(tiny_piper.folder, tmp_path / "copied")
    return tmp_path / "copied"


async def fault_of(folder: Path, dtype: str = "float32") -> str | None:
    """What a real service in this process finds wrong with a bundle's plans."""
    facts: dict[str, Any] = {"bundle": {"path": str(folder)}}
    facts["backend"] = {"kind": "local", "dtype": dtype, "compile": "off"}
    service = await assemble(Settings.model_validate(facts))
    try:
        await service.policy.warm_up()
        assert service.policy.ready == (service.policy.fault is None)
        if (fault := service.policy.fault) is not None:
            with pytest.raises(NotReady, match="golden plan"):
                service.policy.reserve(None).__enter__()
        return fault
    finally:
        await service.policy.drain(0.0)
        await service.close()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("preset", ["tiny", "tiny_piper"])
async def test_a_service_makes_the_golden_plan(preset: str, dtype: str, request: pytest.FixtureRequest) -> None:
    opened: Bundle = request.getfixturevalue(preset)
    assert opened.golden is not None
    assert await fault_of(opened.folder, dtype) is None


async def test_changed_weights_are_found(copied: Path) -> None:
    path = copied / bundle.TRANSFORMER / FILE
    weights = load_file(path)
    name = "action_proj_out.weight"
    save_file(weights | {name: weights[name] * 1.05}, path)
    assert "golden plan: " in str(await fault_of(copied))


async def test_changed_statistics_are_found(copied: Path) -> None:
    document = json.loads((copied / bundle.POLICY).read_text())
    document["action"]["vector"]["norm"]["low"][3] += 0.001
    (copied / bundle.POLICY).write_text(json.dumps(document))
    assert "golden plan: left_joint_4 at step " in str(await fault_of(copied))


def test_the_same_bundle_gives_the_same_plan(tiny_piper: Bundle) -> None:
    assert tiny_piper.golden is not None
    assert make_golden(tiny_piper).digest == tiny_piper.golden.digest


def test_it_is_no_part_of_the_policys_digest(copied: Path) -> None:
    before = bundle.digest(copied)
    (copied / golden.FILE).unlink()
    assert bundle.load(copied).golden is None
    assert bundle.digest(copied) == before
    assert add_golden(copied).digest == bundle.inspect(copied)["golden_digest"]


def test_one_that_is_there_is_not_replaced(copied: Path) -> None:
    with pytest.raises(BundleError, match="expected no golden plan yet, got one; delete it first"):
        add_golden(copied)
