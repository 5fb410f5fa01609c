"""`wavserve piper` as a user starts it: what is refused, and the operator's keys in a real terminal."""

from __future__ import annotations

import argparse
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.clients.gateways import gateway
from tests.clients.piper.rig import eventually
from tests.clients.piper.stage import EXAMPLE, policy
from tests.clients.piper.test_run import answer
from tests.collector import Collector, serving
from wavserve.cli import main
from wavserve.clients.piper import config as configs
from wavserve.clients.piper import figures
from wavserve.clients.piper.phases import Order, Phase, Status
from wavserve.clients.piper.recorder import Counts
from wavserve.commands.piper import Operator


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "--config: expected the robot's file, or --bus virtual, got neither"),
        (["--config=x.toml", "--allow-untrained"], "--allow-untrained: expected only with --bus virtual"),
        (["--config=x.toml", "--armed"], "--armed: expected only with --bus virtual or --dry-run"),
        (["--bus=virtual", "--armed", "--duration=0"], "--duration: expected seconds above 0"),
        (["--config=nowhere.toml", "--armed", "--dry-run"], "nowhere.toml"),
        (["--bus=virtual", "--armed", "--server=here"], "server.address: expected HOST:PORT"),
        (["--bus=virtual", "--armed", "--server=a:1,b"], "server.address[1]: expected HOST:PORT"),
        (["report", "nowhere.jsonl"], "a log of `wavserve piper`"),
    ],
)
def test_what_cannot_be_is_refused(flags: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["piper", *flags]) == 1
    assert words in capsys.readouterr().err


def test_without_a_terminal_nobody_could_stop_the_robot(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["piper", "--bus=virtual", "--allow-untrained"]) == 1
    assert "a terminal for the operator's keys, or --armed" in capsys.readouterr().err


def test_a_channel_that_does_not_exist_is_an_error_and_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["piper", f"--config={EXAMPLE}", "--armed", "--dry-run", f"--log={tmp_path / 'log'}"]) == 1
    assert "arm left: CAN channel can_left cannot be opened" in capsys.readouterr().err


class Terminal:
    """`wavserve piper` in a terminal of its own, as an operator has it."""

    def __init__(self, log: Path, *flags: str) -> None:
        self._log = log
        self._master, slave = pty.openpty()
        self._keyboard, keys = pty.openpty()
        command = [sys.executable, "-m", "wavserve.cli", "piper", f"--log={log}", *flags]
        self.process = subprocess.Popen(command, stdin=keys, stdout=slave, stderr=slave, start_new_session=True)
        os.close(slave)
        os.close(keys)
        self.text = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            while data := os.read(self._master, 4096):
                self.text += data.decode("utf-8", errors="replace")
        except OSError:  # the program has ended
            pass

    def press(self, key: str) -> None:
        os.write(self._keyboard, key.encode())

    def shows(self, words: str) -> None:
        eventually(lambda: words in self.text or self.process.poll() is not None, within_s=300)
        assert words in self.text, self.text[-3000:]

    def ends(self) -> int:
        code = self.process.wait(300)
        self._reader.join(10)
        return code

    def leaves(self) -> None:
        """It ends with code 0; with 1 where its log has a fault, and the only one may be that this busy machine let the
        simulated arms stand still for longer than 0.2 s."""
        code, faults = self.ends(), [line["faults"] for line in figures.read(self._log).of("fault")]
        assert all(fault.startswith("no feedback for ") for each in faults for fault in each), faults
        assert code == bool(faults), self.text[-3000:]

    def hang_up(self) -> None:
        """No key comes any more, while the screen goes on. No signal tells: the program has a session of its own."""
        os.close(self._keyboard)
        self._keyboard = -1

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(10)
        os.close(self._master)
        if self._keyboard >= 0:
            os.close(self._keyboard)


@contextmanager
def terminal(log: Path, *flags: str) -> Iterator[Terminal]:
    with gateway() as served:
        served.policy, served.answer = policy(configs.load(EXAMPLE)), answer
        file = log.with_name("robot.toml")
        text = EXAMPLE.read_text(encoding="utf-8")
        for key, value in (("max_feedback_age_ms = 100.0", 200.0), ("min_feedback_hz = 150.0", 20.0)):  # a busy machine
            text = text.replace(key, f"{key.split()[0]} = {value}")
        file.write_text(text, encoding="utf-8")
        shown = Terminal(log, "--bus=virtual", f"--config={file}", f"--server={served.address}", *flags)
        try:
            yield shown
        finally:
            shown.close()


def test_the_operator_arms_holds_stops_and_leaves_with_keys(tmp_path: Path) -> None:
    log = tmp_path / "run.jsonl"
    with terminal(log) as operator:
        operator.shows("q: hold and leave")
        operator.press("a")
        operator.shows("ready")
        operator.press("h")
        operator.shows("holds: operator")
        operator.press("a")
        eventually(lambda: '"source":"chunk"' in log.read_text(encoding="utf-8"))
        operator.press(" ")
        operator.shows("holds: emergency stop: key")
        operator.press("r")
        operator.shows("LOSE POWER AND FALL")
        operator.press("r")
        eventually(lambda: '"kind":"recovered"' in log.read_text(encoding="utf-8"))
        operator.press("q")
        assert operator.ends() == 1, "an emergency stop happened"
        operator.shows("1 emergency stop")
    orders = [line["order"] for line in figures.read(log).of("order")]
    assert orders == ["arm", "hold", "arm", "recover", "leave"]


def test_a_collector_gets_the_span_of_each_observation(tmp_path: Path) -> None:
    log = tmp_path / "run.jsonl"
    with (
        serving(Collector()) as collector,
        terminal(log, "--armed", f"--traces={collector.endpoint}") as robot,
    ):
        spans = collector.until(lambda spans: any("wavserve.chunk" in each.attributes for each in spans), 300.0)
        robot.process.send_signal(signal.SIGINT)
        robot.leaves()
    assert {each.service for each in spans} == {"wavserve-piper"}
    [(observation, encoding), *_] = [(each, part) for each in spans for part in spans if part.parent_id == each.span_id]
    assert (observation.name, encoding.name) == ("robot.plan", "encode pictures")
    assert observation.attributes["wavserve.robot"] == configs.load(EXAMPLE).robot_id


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 0), (signal.SIGHUP, 0), (signal.SIGQUIT, 0)]
)
def test_signals_hold_and_leave(tmp_path: Path, number: signal.Signals, code: int) -> None:
    log = tmp_path / "run.jsonl"
    with terminal(log) as operator:
        operator.shows("q: hold and leave")
        operator.press("a")
        operator.shows("ready")
        eventually(lambda: '"source":"chunk"' in log.read_text(encoding="utf-8"))
        operator.process.send_signal(number)
        assert operator.ends() == code
    run = figures.read(log)
    commands = [line["command"] for line in run.of("tick") if line["command"]]
    assert commands[-1] == commands[-2], "it came to rest"
    assert run.of("emergency_stop") == []


class StuckControl:
    """A control whose thread stands still: it obeys no order. Orders take their time, as on a busy machine."""

    status = Status(Phase.READY, "", "", ())
    counts = Counts()
    was_stopped = False

    def __init__(self) -> None:
        self.orders: list[Order] = []

    def order(self, order: Order) -> None:
        self.orders.append(order)
        time.sleep(0.3)


class StuckRun:
    """A signal comes while the operator's loop waits for a key."""

    failure = ""

    def __init__(self, number: signal.Signals) -> None:
        self.control = StuckControl()
        self._signal = threading.Timer(0.05, os.kill, (os.getpid(), number))

    @property
    def is_running(self) -> bool:
        if self.control.orders and self._signal.ident is None:
            self._signal.start()
        return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_ends_the_command_though_the_control_stands_still_and_the_machine_is_busy(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    run = StuckRun(number)
    args = argparse.Namespace(armed=True, dry_run=False, duration=None)
    operator = Operator(run, args, leave_within_s=0.2)  # type: ignore[arg-type]
    waker = threading.Timer(20, operator._pressed, ("x",))
    waker.start()
    code, has_waited = operator.attend(), not waker.is_alive()
    waker.cancel()
    assert (code, has_waited, run.control.orders) == (1, False, [Order.ARM, Order.LEAVE])
    assert "the control did not leave within 0.2 s" in capsys.readouterr().err


def test_a_terminal_that_is_gone_has_nobody_who_could_stop_the_robot(tmp_path: Path) -> None:
    log = tmp_path / "run.jsonl"
    with terminal(log) as operator:
        operator.shows("q: hold and leave")
        operator.press("a")
        operator.shows("ready")
        eventually(lambda: '"source":"chunk"' in log.read_text(encoding="utf-8"))
        operator.hang_up()
        assert operator.ends() == 1
    run = figures.read(log)
    commands = [line["command"] for line in run.of("tick") if line["command"]]
    assert commands[-1] == commands[-2], "it came to rest"
    assert [line["order"] for line in run.of("order")] == ["arm", "leave"]


def test_ctrl_z_holds_and_does_not_suspend_the_control(tmp_path: Path) -> None:
    with terminal(tmp_path / "run.jsonl") as operator:
        operator.shows("q: hold and leave")
        operator.press("a")
        operator.shows("ready")
        operator.process.send_signal(signal.SIGTSTP)
        operator.shows("holds: operator")
        operator.press("q")
        operator.leaves()


def test_a_hold_during_the_checks_is_newer_than_the_wish_to_arm(tmp_path: Path) -> None:
    log = tmp_path / "run.jsonl"
    with terminal(log) as operator:
        operator.shows("q: hold and leave")
        checked = log.read_text(encoding="utf-8").count('"kind":"check"')
        operator.press("a")
        time.sleep(0.4)  # the checks take more than a second
        operator.press("h")
        eventually(lambda: log.read_text(encoding="utf-8").count('"kind":"check"') > checked, within_s=300)
        operator.press("q")
        operator.leaves()
    assert [line["order"] for line in figures.read(log).of("order")] == ["hold", "leave"]


def test_a_signal_is_an_emergency_stop(tmp_path: Path) -> None:
    with terminal(tmp_path / "run.jsonl") as operator:
        operator.shows("q: hold and leave")
        operator.press("a")
        operator.shows("ready")
        operator.process.send_signal(signal.SIGUSR1)
        operator.shows("holds: emergency stop: signal")
        operator.press("q")
        assert operator.ends() == 1


def test_a_stop_that_no_key_can_recover_ends_the_run(tmp_path: Path) -> None:
    with terminal(tmp_path / "run.jsonl", "--armed") as operator:
        operator.shows("ready")
        operator.process.send_signal(signal.SIGUSR1)
        operator.shows("holds: emergency stop: signal")
        assert operator.ends() == 1


def test_a_report_of_no_file_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["piper", "report", str(tmp_path / "nowhere.jsonl")]) == 1
    assert "got no file" in capsys.readouterr().err


def test_a_dry_run_prints_commands_and_a_report_can_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "run.jsonl"
    with terminal(log, "--dry-run", "--armed", "--duration=3") as operator:
        operator.shows("would send left_joint_1 ")
        operator.leaves()
    assert main(["piper", "report", str(log)]) == 0
    assert "from chunks" in capsys.readouterr().out
    assert "(dry run)" in log.with_suffix(".html").read_text(encoding="utf-8")
