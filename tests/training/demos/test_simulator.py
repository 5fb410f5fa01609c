"""The real simulator: the expert solves a task, and a command that was killed goes on to the same data set."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.training.test_dataset import contents
from wavserve.training.dataset import open_dataset, picture
from wavserve.training.dataset_format import data_file

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[3]
TIMEOUT_S = 900


def command(out: Path, episodes: int) -> list[str]:
    line = f"train demos --suite libero_object --tasks 7 --size 64 --episodes {episodes} --out {out}"
    return [sys.executable, "-m", "wavserve.cli", *line.split()]


def test_the_expert_picks_up_the_milk_and_a_kill_changes_nothing(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "service")}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(whole, 2), env=environment, check=True, capture_output=True, timeout=TIMEOUT_S)
    dataset = open_dataset(whole)
    assert [(info.kind, info.success) for info in dataset.infos] == [("expert", True)] * 2
    episode = dataset.read(0)
    assert 80 < episode.info.num_steps < 280
    object_, basket = episode.privileged[-1, :2], episode.privileged[-1, 3:5]
    assert np.linalg.norm(object_ - basket) < 0.08, "m"
    assert np.linalg.norm(episode.privileged[0, :2] - basket) > 0.15
    assert np.linalg.norm(episode.state[1:, :3] - episode.state[:-1, :3], axis=1).max() < 0.03
    assert episode.returns[-1] > 0.6 > episode.returns[0]
    assert all(picture(jpeg).std() > 10 for jpegs in episode.pictures.values() for jpeg in jpegs)
    assert episode.pictures["agentview"][0] != episode.pictures["agentview"][-1]

    with subprocess.Popen(command(killed, 2), env=environment, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + TIMEOUT_S
        while not data_file(killed, 0).exists() and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.2)
        time.sleep(1.0)  # somewhere in the second episode
        process.send_signal(signal.SIGKILL)
    assert not data_file(killed, 1).exists()
    subprocess.run(command(killed, 2), env=environment, check=True, capture_output=True, timeout=TIMEOUT_S)
    assert contents(killed) == contents(whole)
