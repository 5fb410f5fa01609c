"""Compiled blocks against uncompiled ones, in separate processes with a separate cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
CHILD = (sys.executable, "-m", "tests.models.fast.compiled_child")
MODELS = ("video", "value", "action")
GRAPHS = 6
"""Two per model: video blocks that attend across views and within a view; experts on one context row and on several."""
TOLERANCE = 1e-5


def run_child(environ: Mapping[str, str], *models: str) -> tuple[dict[str, Any], str]:
    """The child's report and its log."""
    done = subprocess.run([*CHILD, *models], env=environ, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path_factory.mktemp("compiled"))}


@pytest.fixture(scope="module")
def first(environ: dict[str, str]) -> dict[str, Any]:
    report, log = run_child(environ, *MODELS)
    if "uncompiled" in log:
        pytest.skip(f"no working C++ compiler: {log}")
    return report


def test_compiled_models_give_the_same_output(first: dict[str, Any]) -> None:
    assert set(first["differences"]) == set(MODELS)
    assert all(0 < difference <= TOLERANCE for difference in first["differences"].values()), first


def test_no_number_of_rows_or_text_tokens_causes_a_recompilation(first: dict[str, Any]) -> None:
    assert first["graphs"] == GRAPHS
    assert first["cache_misses"] == GRAPHS


def test_a_second_process_takes_everything_from_the_cache(environ: dict[str, str], first: dict[str, Any]) -> None:
    second, _ = run_child(environ, "value")

    assert (second["cache_hits"], second["cache_misses"]) == (2, 0)
    assert second["differences"]["value"] == first["differences"]["value"]


def test_without_a_compiler_models_run_uncompiled(tmp_path: Path) -> None:
    nothing = {"PATH": str(tmp_path), "CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}

    report, log = run_child({**os.environ, **nothing}, "value")

    assert report["differences"] == {"value": 0}
    assert log.count("value: runs uncompiled because torch's compiler does not work here") == 1
