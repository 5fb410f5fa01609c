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
class Session:
    """What the service recorded of one session: its plans in order."""

    requests: list[records.Record] = field(default_factory=list)

    def actions(self, num_steps: int) -> np.ndarray:
        """The actions of an episode that executes `N_ACTION_STEPS` of each chunk."""
        return np.concatenate([each.actions[:N_ACTION_STEPS] for each in self.requests])[:num_steps]


def sessions_of(server: Server) -> dict[str, Session]:
    """The sessions that the service recorded so far, by id."""
    found: dict[str, Session] = {}
    for path in sorted(server.records.glob("*.safetensors")):
        session_id = path.stem.rpartition("-")[0]
        found.setdefault(session_id, Session()).requests.append(records.load(path))
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
    before = sessions_of(server)
    done = evaluate(tmp_path, *flags, num_episodes=4)
    assert done.returncode == 0, done.stderr[-3000:]
    overall = json.loads((tmp_path / "out" / "eval_info.json").read_text())["overall"]
    assert (overall["n_episodes"], overall["pc_success"]) == (4, 100.0)
    sessions = {key: each for key, each in sessions_of(server).items() if key not in before}
    episodes = episodes_in(tmp_path / "log")
    assert len(sessions) == len(episodes) == 4
    for seed, actions in episodes:
        [session] = [each for each in sessions.values() if shows(each, seed)]
        assert actions.tobytes() == session.actions(NUM_STEPS).tobytes()


def shows(session: Session, seed: int) -> bool:
    """Whether the session saw an episode of this seed, pictures bit by bit, steps and instruction included."""
    requests = [each.request for each in session.requests]
    steps = [(each.control_step, each.executed_steps, each.instruction) for each in requests]
    if steps != [(0, 0, TASK), (8, 8, TASK), (16, 8, TASK)]:
        return False
    seen = [pictures(seed, each.control_step) for each in requests]
    pairs = zip(requests, seen, strict=True)
    return all(np.array_equal(each.images[name], shown[name]) for each, shown in pairs for name in shown)


@pytest.mark.parametrize("transport", ["http", "stream"])
def test_a_folder_without_weights_is_a_policy(server: Server, tmp_path: Path, transport: str) -> None:
    folder = policy_folder(tmp_path / "policy", server.grpc)
    names = {"config.json", "policy_preprocessor.json", "policy_postprocessor.json"}
    assert {each.name for each in folder.iterdir()} == names
    address = server.http if transport == "http" else server.grpc
    before = sessions_of(server)
    flags = [f"--policy.path={folder}", f"--policy.transport={transport}", f"--policy.address={address}"]
    done = evaluate(tmp_path, *flags)
    assert done.returncode == 0, done.stderr[-3000:]
    sessions = {key: each for key, each in sessions_of(server).items() if key not in before}
    episodes = episodes_in(tmp_path / "log")
    assert len(sessions) == len(episodes) == 2
    assert all(any(shows(each, seed) for each in sessions.values()) for seed, _ in episodes)


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
    before = sessions_of(server)
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
    [(_, session)] = [(key, each) for key, each in sessions_of(server).items() if key not in before]
    served = {row.tobytes() for each in session.requests for row in each.actions}
    [log] = (tmp_path / "log").glob("*.jsonl")
    sent = [np.array(json.loads(line), np.float32) for line in log.read_text().splitlines()]
    assert len(sent) > N_ACTION_STEPS
    assert {each.tobytes() for each in sent} <= served
    if inference == "rtc":
        continued = [each.request.rtc for each in session.requests if each.request.rtc is not None]
        assert any(len(each.prev_chunk_left_over) for each in continued)
