"""The real LeRobot, in an environment of its own, runs its own loops on a policy of a real service.

`make test-peers` makes the environment. The worlds are fakes: LeRobot's wheel does not have LeRobot's mock robot.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from tests.peers.fake_scene import TASK, pictures
from tests.service.rig import Server, start
from wavserve.policy import records

pytestmark = pytest.mark.peers

ROOT = Path(__file__).parents[2]
LEROBOT = ROOT / ".venv-lerobot" / "bin"
TIMEOUT_S = 300
NUM_STEPS, N_ACTION_STEPS = 20, 8


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if not (LEROBOT / "lerobot-eval").exists():
        pytest.skip("no environment with LeRobot: make test-peers makes it")
    running = start(tmp_path_factory.mktemp("service"), "local")
    yield running
    running.stop()


@dataclass
class Episode:
    """What the service recorded of one episode: its plans in order."""

    session_id: str
    plans: list[records.Record] = field(default_factory=list)

    @property
    def actions(self) -> np.ndarray:
        """What is executed, `N_ACTION_STEPS` of each chunk."""
        return np.concatenate([each.actions[:N_ACTION_STEPS] for each in self.plans])[:NUM_STEPS]

    def shows(self, seed: int) -> bool:
        """Whether it is the episode of this seed, pictures bit by bit."""
        requests = [each.request for each in self.plans]
        steps = [(each.control_step, each.executed_steps, each.instruction) for each in requests]
        assert steps == [(0, 0, TASK), (8, 8, TASK), (16, 8, TASK)]
        shown = [(each, pictures(seed, each.control_step)) for each in requests]
        return all(np.array_equal(each.images[name], seen[name]) for each, seen in shown for name in seen)


def episodes_of(server: Server, before: set[Path]) -> list[Episode]:
    """The episodes that the service recorded since. A plan without memory begins one."""
    found: list[Episode] = []
    for path in sorted(set(server.records.glob("*.safetensors")) - before):
        session_id, plan = path.stem.rpartition("-")[0], records.load(path)
        if plan.memory is None:
            found.append(Episode(session_id))
        assert found[-1].session_id == session_id
        found[-1].plans.append(plan)
    return found


def run(command: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """A command of LeRobot's environment, which finds the fake worlds and no hub."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "HF_HUB_OFFLINE": "1"}
    line = [str(LEROBOT / command), *flags]
    return subprocess.run(
        line, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, cwd=ROOT / "tests"
    )


def evaluate(folder: Path, *flags: str, num_episodes: int = 2) -> subprocess.CompletedProcess[str]:
    """`lerobot-eval` of two environments at once."""
    return run(
        "lerobot-eval",
        "--policy.device=cpu",
        "--policy.jpeg_quality=null",
        "--env.discover_packages_path=fake_worlds",
        "--env.type=fake_tabletop",
        f"--env.episode_length={NUM_STEPS}",
        f"--env.log_folder={folder / 'log'}",
        "--eval.batch_size=2",
        f"--eval.n_episodes={num_episodes}",
        "--eval.use_async_envs=false",
        f"--output_dir={folder / 'out'}",
        *flags,
    )


def episodes_in(folder: Path) -> list[tuple[int, np.ndarray]]:
    """Seed and actions of each episode that the environments saw."""
    episodes: list[tuple[int, list[list[float]]]] = []
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            value = json.loads(line)
            if isinstance(value, dict):
                episodes.append((value["seed"], []))
            else:
                episodes[-1][1].append(value)
    return [(seed, np.array(actions, np.float32)) for seed, actions in episodes if actions]


def policy_folder(folder: Path, address: str) -> Path:
    """A folder for `--policy.path`, as the README says."""
    code = (
        "from lerobot_policy_wavserve.configuration_wavserve import WavserveConfig\n"
        "from lerobot_policy_wavserve.modeling_wavserve import WavservePolicy\n"
        f"config = WavserveConfig(address={address!r}, allow_untrained=True, device='cpu')\n"
        f"WavservePolicy(config).save_pretrained({str(folder)!r})\n"
    )
    done = run("python", "-c", code)
    assert done.returncode == 0, done.stderr
    return folder


def test_an_evaluation_executes_the_services_actions_bit_by_bit(server: Server, tmp_path: Path) -> None:
    flags = ["--policy.type=wavserve", f"--policy.address={server.grpc}", "--policy.allow_untrained=true"]
    before = set(server.records.glob("*"))
    done = evaluate(tmp_path, *flags, num_episodes=4)
    assert done.returncode == 0, done.stderr[-3000:]
    overall = json.loads((tmp_path / "out" / "eval_info.json").read_text())["overall"]
    assert (overall["n_episodes"], overall["pc_success"]) == (4, 100.0)
    served, episodes = episodes_of(server, before), episodes_in(tmp_path / "log")
    assert len(served) == len(episodes) == 4
    assert len({each.session_id for each in served}) == 2  # of each environment, for all of its episodes
    for seed, actions in episodes:
        [episode] = [each for each in served if each.shows(seed)]
        assert actions.tobytes() == episode.actions.tobytes()


@pytest.mark.parametrize(("transport", "num_episodes"), [("http", 2), ("stream", 4)])
def test_a_folder_without_weights_is_a_policy(
    server: Server, tmp_path: Path, transport: str, num_episodes: int
) -> None:
    folder = policy_folder(tmp_path / "policy", server.grpc)
    names = {"config.json", "policy_preprocessor.json", "policy_postprocessor.json"}
    assert {each.name for each in folder.iterdir()} == names
    address = server.http if transport == "http" else server.grpc
    before = set(server.records.glob("*"))
    flags = [f"--policy.path={folder}", f"--policy.transport={transport}", f"--policy.address={address}"]
    done = evaluate(tmp_path, *flags, num_episodes=num_episodes)
    assert done.returncode == 0, done.stderr[-3000:]
    served, episodes = episodes_of(server, before), episodes_in(tmp_path / "log")
    assert len(served) == len(episodes) == num_episodes
    assert all(any(each.shows(seed) for each in served) for seed, _ in episodes)


def test_untrained_weights_are_refused_before_the_first_action(server: Server, tmp_path: Path) -> None:
    done = evaluate(tmp_path, "--policy.type=wavserve", f"--policy.address={server.grpc}")
    assert done.returncode != 0
    assert "ContractMismatch: untrained: expected a trained policy, or allow_untrained=true" in done.stderr
    assert not episodes_in(tmp_path / "log")


def test_the_policy_by_itself(server: Server) -> None:
    done = run("python", str(Path(__file__).with_name("lerobot_policy.py")), server.grpc)
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["all as it should be"]), done.stderr[-3000:]


@pytest.mark.parametrize("inference", ["sync", "rtc"])
def test_a_rollout_moves_an_arm(server: Server, tmp_path: Path, inference: str) -> None:
    folder = policy_folder(tmp_path / "policy", server.grpc)
    before = set(server.records.glob("*"))
    done = run(
        "lerobot-rollout",
        f"--policy.path={folder}",
        '--policy.planner={"num_iterations": 0}',
        "--robot.discover_packages_path=fake_worlds",
        "--robot.type=fake_arm",
        "--robot.id=fake",
        f"--robot.calibration_dir={tmp_path}",
        f"--robot.log_folder={tmp_path / 'log'}",
        f"--task={TASK}",
        "--fps=20",
        "--duration=15",
        "--device=cpu",
        "--play_sounds=false",
        "--return_to_initial_position=false",
        f"--inference.type={inference}",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    [episode] = episodes_of(server, before)
    served = {row.tobytes() for each in episode.plans for row in each.actions}
    [log] = (tmp_path / "log").glob("*.jsonl")
    sent = [np.array(json.loads(line), np.float32) for line in log.read_text().splitlines()]
    assert len(sent) > N_ACTION_STEPS
    assert {each.tobytes() for each in sent} <= served
    if inference == "rtc":
        continued = [each.request.rtc for each in episode.plans if each.request.rtc is not None]
        assert any(len(each.prev_chunk_left_over) for each in continued)
