"""A simulator's process: its answers, its faults and its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tests.simulation.fake import FakeEnvironment, goal_of, toward_goal
from wavserve.core.errors import InvalidRequest, SimulationError, SimulationUnavailable, SimulatorDied
from wavserve.core.simulation import Start
from wavserve.simulation.process import Patience, SimulatorProcess

ROOT = Path(__file__).parents[2]
VARIABLES = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'service'}"}
START = Start("fake_reach", 1, 2, seed=7)
IMPATIENT = Patience(start_s=60.0, call_s=2.0, close_s=1.0)


def process(fault: str = "none", patience: Patience | None = None) -> SimulatorProcess:
    command = [sys.executable, "-m", "tests.simulation.fake_worker", fault]
    return SimulatorProcess(command, VARIABLES, patience)


@pytest.fixture(scope="module")
def environment() -> Iterator[SimulatorProcess]:
    with closing(process()) as opened:
        yield opened


def wait_for_end(pid: int) -> None:
    """Raises when the process lives for 30 s more."""
    for _ in range(300):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state == "Z":
            return
        time.sleep(0.1)
    raise AssertionError("the process still lives")


def test_an_episode_across_the_pipe_is_the_episode_itself(environment: SimulatorProcess) -> None:
    here = FakeEnvironment()
    assert environment.tasks("fake_reach") == here.tasks("fake_reach")
    assert environment.reset(START) == here.reset(START)
    solved = False
    while not solved:
        action = toward_goal(environment.state(), goal_of(START))
        solved = here.step(action)
        assert environment.step(action) == solved
        assert environment.state().tobytes() == here.state().tobytes()
        assert environment.sim_state().tobytes() == here.sim_state().tobytes()
    for camera, picture in environment.images().items():
        assert picture.dtype == np.uint8
        assert np.array_equal(picture, here.images()[camera])
    assert environment.versions() == here.versions()


def test_a_recorded_state_is_shown_again(environment: SimulatorProcess) -> None:
    environment.reset(START)
    environment.step(np.ones(7))
    recorded, shown = environment.sim_state(), environment.images()
    environment.reset(START)
    environment.restore(recorded)
    assert np.array_equal(environment.images()["agentview"], shown["agentview"])


def test_an_error_comes_back_as_it_was_and_the_process_goes_on(environment: SimulatorProcess) -> None:
    with pytest.raises(InvalidRequest, match="one of fake_reach, fake_other, got 'libero'") as caught:
        environment.tasks("libero")
    assert (caught.value.field, caught.value.actual) == ("suite", "'libero'")
    assert environment.reset(START).index == 1


def test_float32_and_strided_actions_arrive_as_they_are(environment: SimulatorProcess) -> None:
    here = FakeEnvironment()
    action = np.linspace(-1, 1, 14, dtype=np.float32)[::2]
    for each in (environment, here):
        each.reset(START)
        each.step(action)
    assert environment.state().tobytes() == here.state().tobytes()


def test_noise_on_standard_output_disturbs_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with closing(process("noise")) as environment:
        environment.reset(START)
        environment.step(np.zeros(7))
        assert environment.state().shape == (8,)
    assert capfd.readouterr() == ("", "")


def test_an_unknown_failure_is_a_typed_error_and_the_process_goes_on() -> None:
    with closing(process("raise")) as environment:
        environment.reset(START)
        with pytest.raises(SimulationError, match="ValueError: an array of the wrong shape"):
            environment.step(np.zeros(7))
        environment.reset(START)


def test_a_crash_is_a_typed_error_with_the_last_output() -> None:
    with closing(process("crash")) as environment:
        environment.reset(START)
        with pytest.raises(SimulatorDied, match=r"(?s)ended with code -11.*its last words.*Segmentation fault"):
            environment.step(np.zeros(7))
        with pytest.raises(SimulationError, match="closed"):
            environment.state()


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_is_killed_between_calls_is_a_typed_error(signal_number: int) -> None:
    with closing(process()) as environment:
        environment.reset(START)
        os.kill(environment.pid, signal_number)
        wait_for_end(environment.pid)
        with pytest.raises(SimulatorDied, match=f"code -{int(signal_number)}"):
            environment.step(np.zeros(7))


def test_a_call_that_stands_still_ends_and_says_where() -> None:
    with closing(process("stand still", IMPATIENT)) as environment:
        environment.reset(START)
        with pytest.raises(SimulatorDied, match=r"(?s)Timeout.*fake_worker.py"):
            environment.step(np.zeros(7))
        wait_for_end(environment.pid)


def test_a_process_that_keeps_the_interpreter_is_killed() -> None:
    environment = process("stand still and keep the interpreter", Patience(60.0, 60.0, 0.5))
    environment.reset(START)
    failures: list[Exception] = []

    def step() -> None:
        try:
            environment.step(np.zeros(7))
        except SimulationError as error:
            failures.append(error)

    waiting = threading.Thread(target=step)
    waiting.start()
    time.sleep(0.3)
    environment.close()
    waiting.join(30)
    assert not waiting.is_alive()
    assert failures
    wait_for_end(environment.pid)


@pytest.mark.parametrize(
    ("fault", "kind", "text"),
    [
        ("unavailable", SimulationUnavailable, "install it"),
        ("raise at start", SimulationError, "ValueError: no scene"),
        ("crash at start", SimulatorDied, "code -6"),
    ],
)
def test_an_environment_that_cannot_be_opened_says_why(fault: str, kind: type[SimulationError], text: str) -> None:
    with pytest.raises(kind, match=text):
        process(fault)


def test_a_start_that_stands_still_is_given_up() -> None:
    with pytest.raises(SimulatorDied, match="no answer within 1 s"):
        process("stand still at start", Patience(start_s=1.0, close_s=0.5))


def test_closing_twice_is_closing() -> None:
    environment = process()
    environment.close()
    environment.close()
    wait_for_end(environment.pid)
    with pytest.raises(SimulationError, match="closed"):
        environment.reset(START)


PARENT = """
import sys
from tests.simulation.test_process import START, process
import numpy as np
environment = process(sys.argv[1])
environment.reset(START)
print(environment.pid, flush=True)
environment.step(np.zeros(7)) if sys.argv[1] != "none" else sys.stdin.read()
"""


@pytest.mark.parametrize("fault", ["none", "stand still"])
def test_the_child_ends_with_a_killed_parent(fault: str) -> None:
    line = [sys.executable, "-c", PARENT, fault]
    with subprocess.Popen(line, env=VARIABLES, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        time.sleep(0.2)  # the child is in the middle of its step
        parent.kill()
        wait_for_end(pid)
