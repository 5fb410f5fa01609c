"""`wavserve libero` with the real simulator: a short episode of each suite, end to end through the service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.service.rig import Server
from wavserve.cli import main

pytestmark = [pytest.mark.system, pytest.mark.slow]
SUITES = ("libero_spatial", "libero_object", "libero_goal", "libero_10")


@pytest.mark.parametrize("server", ["local"], indirect=True)
def test_an_episode_of_each_suite_is_on_record_and_on_video(server: Server, tmp_path: Path, capsys: Any) -> None:
    if server.backend != "local":
        pytest.skip("one backend is enough")
    flags = [
        "--tasks",
        "0",
        "--num-trials-per-task",
        "1",
        "--max-steps",
        "12",
        "--num-steps-wait",
        "2",
        "--videos",
        "1",
    ]
    flags += ["--planner", "off", "--allow-untrained", "--service", server.grpc, "--transport", "stream"]
    folder = tmp_path / "run"
    assert main(["libero", "--suite", ",".join(SUITES), "--out", str(folder), *flags]) == 0
    records = [json.loads(line) for line in (folder / "episodes.jsonl").read_text().splitlines()]
    assert [each["suite"] for each in records] == list(SUITES)
    assert [(each["num_steps"], each["num_plans"], each["untrained"]) for each in records] == [(12, 2, True)] * 4
    assert all(each["versions"]["mujoco"] for each in records)
    [video] = (folder / "report" / "videos").iterdir()
    assert video.stat().st_size > 1000
    assert "untrained" in capsys.readouterr().out.lower()
