"""Compiled blocks against the same as they are written: in processes of their own, with a cache of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

CHILD = Path(__file__).with_name("compiled_child.py")
MODELS = ("video", "value", "action")
GRAPHS = 6
"""Two a model: blocks that attend across views and within; experts on one context row and on several."""
TOLERANCE = 1e-5


def ran(environ: Mapping[str, str], *models: str) -> tuple[dict[str, Any], str]:
    """What the child says, and its log."""
    done = subprocess.run(
        [sys.executable, str(CHILD), *models], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path_factory.mktemp("compiled"))}


@pytest.fixture(scope="module")
def first(environ: dict[str, str]) -> dict[str, Any]:
    told, log = ran(environ, *MODELS)
    if "uncompiled" in log:
        pytest.skip(f"no C++ compiler that works: {log}")
    return told


def test_compiled_models_compute_the_same(first: dict[str, Any]) -> None:
    assert set(first["apart"]) == set(MODELS)
    assert all(0 < apart <= TOLERANCE for apart in first["apart"].values()), first


def test_rows_and_instructions_of_any_number_compile_nothing_more(first: dict[str, Any]) -> None:
    assert first["graphs"] == GRAPHS
    assert first["missed"] == GRAPHS


def test_a_second_process_compiles_nothing(environ: dict[str, str], first: dict[str, Any]) -> None:
    again, _ = ran(environ, "value")

    assert (again["spared"], again["missed"]) == (2, 0)
    assert again["apart"]["value"] == first["apart"]["value"]


def test_without_a_compiler_models_run_as_they_are_written(tmp_path: Path) -> None:
    nothing = {"PATH": str(tmp_path), "CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}

    told, log = ran({**os.environ, **nothing}, "value")

    assert told["apart"] == {"value": 0}
    assert log.count("value: runs uncompiled, for torch's compiler does not work here") == 1
