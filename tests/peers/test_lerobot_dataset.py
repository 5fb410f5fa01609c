"""The real LeRobot opens a data set of ours, and reads what was written. `make test-peers` makes its environment."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.training import synthetic
from wavserve.training.dataset import picture

pytestmark = pytest.mark.peers

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-lerobot" / "bin" / "python"
TIMEOUT_S = 300


def test_lerobot_reads_the_frames_that_were_written(tmp_path: Path) -> None:
    if not PYTHON.exists():
        pytest.skip("no environment with LeRobot: make test-peers makes it")
    dataset = synthetic.write(tmp_path / "set", num_tasks=2, per_task=2, size=128)
    program = ROOT / "tests" / "peers" / "lerobot_dataset.py"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")}
    environment.pop("PYTHONPATH", None)
    command = [str(PYTHON), str(program), str(dataset.folder), str(tmp_path / "read.npz")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "read.npz") as read:
        episodes = list(dataset.episodes())
        assert read["lengths"].tolist() == [info.num_steps for info in dataset.infos]
        assert int(read["fps"]) == 20
        assert read["tasks"].tolist() == [info.instruction for info in dataset.infos for _ in range(info.num_steps)]
        for name, part in {
            "observation.state": "state",
            "observation.privileged": "privileged",
            "executed_action": "executed_action",
            "is_expert": "is_expert",
            "next.reward": "reward",
            "next.reward_terms": "reward_terms",
            "next.success": "solved",
            "return": "returns",
        }.items():
            assert np.array_equal(read[name], np.concatenate([getattr(each, part) for each in episodes])), name
        action = np.concatenate([each.action for each in episodes])
        assert np.array_equal(read["action"][:, 0], action)
        assert np.array_equal(read["action"][0:30, 2], action[2:32]), "actions to come, by time"
        assert np.array_equal(read["index"], np.arange(len(action)))
        shown = [
            picture(each.pictures["wrist"][index]).transpose(2, 0, 1) / np.float32(255)
            for each in episodes
            for index in each.picture_indices()
        ]
        assert np.array_equal(read["observation.images.wrist"], np.stack(shown))
        assert np.allclose(read["stats:action:mean"], action.mean(0), atol=1e-6)
        assert read["stats:observation.images.wrist:mean"].shape == (3, 1, 1)
