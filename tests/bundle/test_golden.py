"""The golden plan's file: it survives, its digest is of its content, and one that does not fit is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from wavserve.bundle import golden
from wavserve.bundle.bundle import Bundle
from wavserve.bundle.golden import Golden
from wavserve.core.errors import BundleError


@pytest.fixture
def made(tiny_piper: Bundle) -> Golden:
    assert tiny_piper.golden is not None
    return tiny_piper.golden


def test_a_golden_plan_survives(made: Golden, tiny_piper: Bundle) -> None:
    got = golden.unpack(golden.pack(made), tiny_piper.spec)
    assert (got.instruction, got.seed, got.digest) == (made.instruction, made.seed, made.digest)
    assert got.actions.tobytes() == made.actions.tobytes()
    assert list(got.images) == [camera.name for camera in tiny_piper.spec.cameras]


def test_the_digest_is_of_all_content(made: Golden) -> None:
    others = [
        replace(made, seed=1),
        replace(made, instruction="go"),
        replace(made, state=made.state + 1),
        replace(made, actions=made.actions + 1),
        replace(made, images={**made.images, "top": 255 - made.images["top"]}),
    ]
    assert len({each.digest for each in (made, *others)}) == len(others) + 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("seed"), "expected actions, images.left_wrist, .*, got actions"),
        (lambda t: t.update(more=t["state"]), ".*, got .*more"),
        (lambda t: t.update({"images.top": t["images.top"][1:]}), r"images.top: expected uint8 \[128, 128, 3\], got"),
        (lambda t: t.update(state=t["state"].astype(np.float64)), r"state: expected float32 \[14\], got float64"),
        (lambda t: t.update(actions=t["actions"][:5]), r"actions: expected float32 \[54, 14\], got float32 \[5, 14\]"),
        (lambda t: t.update(actions=t["actions"] * np.float32("nan")), "actions: expected finite"),
        (lambda t: t["state"].__setitem__(3, 3e38), r"state: left_joint_4: expected -\S+ to \S+ rad, got 3e\+38"),
        (lambda t: t.update(instruction=np.array([255], np.uint8)), "instruction: expected UTF-8"),
        (lambda t: t.update(instruction=np.array([], np.uint8)), "instruction: expected a text of 1 to 255 bytes"),
        (lambda t: t.update(seed=np.array(-1)), "seed: expected 0 to"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(
    change: Callable[[dict[str, Any]], object], words: str, made: Golden, tiny_piper: Bundle
) -> None:
    tensors = load(golden.pack(made))
    change(tensors)
    with pytest.raises(BundleError, match=f"golden.safetensors: {words}"):
        golden.unpack(save(tensors), tiny_piper.spec)


@pytest.mark.parametrize("packed", [b"", b"\x00" * 64, b"not safetensors at all"])
def test_another_file_is_refused(packed: bytes, tiny_piper: Bundle) -> None:
    with pytest.raises(BundleError, match=r"golden.safetensors: expected a safetensors file"):
        golden.unpack(packed, tiny_piper.spec)


def test_a_type_that_numpy_does_not_have_is_refused(tiny_piper: Bundle) -> None:
    header = json.dumps({"actions": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}).encode()
    with pytest.raises(BundleError, match=r"golden\.safetensors: expected numbers of types that numpy has, got 'BF16'"):
        golden.unpack(len(header).to_bytes(8, "little") + header + bytes(2), tiny_piper.spec)


def test_a_folder_is_no_golden_plan(tmp_path: Path, tiny_piper: Bundle) -> None:
    (tmp_path / golden.FILE).mkdir()
    with pytest.raises(BundleError, match=r"golden\.safetensors: expected a file that can be read: Is a directory"):
        golden.read(tmp_path, tiny_piper.spec)
