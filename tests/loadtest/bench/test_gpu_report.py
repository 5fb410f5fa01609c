"""The GPU report on the CPU at small sizes: every part runs and is checked. Only a GPU can test CUDA itself."""

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
"""All parts but `service` and `triton`, which have other tests."""


def test_every_part_runs_and_is_checked(tmp_path: Path) -> None:
    flags = ["--device=cpu", "--quick", "--repeats=1", f"--out={tmp_path}", "--parts", *PARTS]

    done = subprocess.run([*REPORT, *flags], capture_output=True, text=True, check=False, cwd=ROOT)

    assert done.returncode == 0, done.stderr[-3000:]
    [path] = tmp_path.iterdir()
    assert path.stem.endswith("-parity-exact-bfloat16-arena-plan-quick"), (
        "a report of some parts has another name than a whole one"
    )
    report = json.loads(path.read_text())
    assert {"device", "versions", "command", "aims", *PARTS} == set(report)
    assert json.loads(done.stdout.splitlines()[-1]) == report
    assert all(aim["met"] for aim in report["aims"])
    assert {aim["name"].partition(":")[0] for aim in report["aims"]} == {*PARTS} - {"plan"}
    assert "--quick" in report["command"]
    assert report["versions"]["torch"].startswith("2.13.0")
    assert report["parity"]["checks"] > 30
    assert 0 < report["exact"]["action_difference"]["fast"] <= 1e-4
    assert report["arena"]["action_difference"] == {"before": 0.0, "after": 0.0}
    assert "process ended" in report["arena"]["a plan after the arena owner's process exit"]
    assert all(plan["over_lower_bound"] > 0 for plan in report["plan"]["plans"].values())


def test_a_failing_part_is_reported_and_not_raised(tmp_path: Path) -> None:
    def broken(setup: gpu_report.Setup) -> dict[str, object]:
        raise ValueError("no such thing")

    setup = gpu_report.Setup(torch.device("cpu"), quick=True, repeats=1, folder=tmp_path)

    found = gpu_report.run(broken, setup)

    assert (found["ok"], found["error"]) == (False, "ValueError: no such thing")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_report_is_refused(tmp_path: Path) -> None:
    command = [*REPORT, f"--out={tmp_path}"]

    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)

    assert done.returncode == 1
    assert "--device cuda: expected a GPU that torch" in done.stderr
    assert list(tmp_path.iterdir()) == []
