"""The report of a GPU, on the CPU and small: that every part runs and judges. What CUDA does, only a GPU tells."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from loadtest.bench import gpu_report

ROOT = Path(__file__).parents[3]
REPORT = (sys.executable, "-m", "loadtest.bench.gpu_report")
PARTS = ("parity", "exact", "bfloat16", "arena", "plan")
"""The service on Triton has tests of its own."""


def test_every_part_runs_and_is_judged(tmp_path: Path) -> None:
    flags = ["--device=cpu", "--quick", "--repeats=1", f"--out={tmp_path}", "--parts", *PARTS]

    done = subprocess.run([*REPORT, *flags], capture_output=True, text=True, check=False, cwd=ROOT)

    assert done.returncode == 0, done.stderr[-3000:]
    [path] = tmp_path.iterdir()
    assert path.stem.endswith("-parity-exact-bfloat16-arena-plan-quick"), "not the name of a whole report"
    report = json.loads(path.read_text())
    assert {"device", "versions", "command", *PARTS} == set(report)
    assert "--quick" in report["command"]
    assert report["versions"]["torch"].startswith("2.13.0")
    assert report["parity"]["checks"] > 30
    assert 0 < report["exact"]["action_difference"]["fast"] <= 1e-4
    assert report["arena"]["action_difference"] == {"before": 0.0, "after": 0.0}
    assert "process ended" in report["arena"]["a plan while its owner is dead"]
    assert all(plan["over_floor"] > 0 for plan in report["plan"]["plans"].values())


def test_a_part_that_fails_keeps_no_other_from_running(tmp_path: Path) -> None:
    def broken(ground: gpu_report.Ground) -> dict[str, object]:
        raise ValueError("no such thing")

    ground = gpu_report.Ground(torch.device("cpu"), quick=True, repeats=1, folder=tmp_path)

    found = gpu_report.run(broken, ground)

    assert (found["ok"], found["error"]) == (False, "ValueError: no such thing")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    command = [*REPORT, f"--out={tmp_path}"]

    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)

    assert done.returncode == 1
    assert "--device cuda: expected a GPU that torch" in done.stderr
    assert list(tmp_path.iterdir()) == []
