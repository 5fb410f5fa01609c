"""`wavserve piper`: moves AgileX Piper arms with a policy, under an operator's keys. `piper report`: a run's page.

Needs the extra `piper`. Decides nothing about motion: `clients/piper` does.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import math
import queue
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wavserve.clients.piper.phases import Order, Phase
from wavserve.commands import output, traces
from wavserve.core.errors import InvalidRequest, WavserveError
from wavserve.core.spec import RTC_MODES
from wavserve.core.texts import counted

if TYPE_CHECKING:
    from wavserve.clients.piper.preflight import Check
    from wavserve.clients.piper.run import PiperRun

KEYS = "a: arm   h: hold   space or e: emergency stop   r: recover   q: hold and leave"
DROP_WARNING = "RECOVERING: stopped arms LOSE POWER AND FALL. Hold them, then press r again within 10 s."
CONFIRM_WITHIN_S = 10.0
_NEXT_KEY = {"disarmed": "; a arms", "stopped": "; r twice recovers, and the stopped arms fall; then a arms"}
"""What the operator can do next, by phase."""
STATUS_EVERY_S = 5.0
LEAVE_WITHIN_S = 10.0
"""A control that has not left by then stands still, in a send for example. The command ends without it."""

_SERVER = "the service's gRPC address, or those of several gateways (default: the file's)"
_CONFIG = "the robot's TOML file; without it, --bus virtual takes two simulated arms for the preset tiny-piper"
_BUS = "socketcan: real arms. virtual: simulated arms in this process (default: %(default)s)"
_UNTRAINED = "on the virtual bus: accept a policy with random weights"
_DRY = "decide and log every command, and send none"
_ARMED = "arm without a key, and leave after a stop; only on the virtual bus or in a dry run"
_RTC = "real-time chunking: off, rtc_guided or rtc_trained (default: the file's, else the policy's)"
_DURATION = "leave after this many armed seconds"


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`wavserve piper` and `wavserve piper report`."""
    piper = commands.add_parser(
        "piper",
        help="move AgileX Piper arms with a policy",
        description="Move one or two AgileX Piper arms with a policy. Nothing moves before every check is green and "
        "the operator arms the robot.",
    )
    piper.add_argument("--config", type=Path, metavar="FILE", help=_CONFIG)
    piper.add_argument("--bus", choices=("socketcan", "virtual"), default="socketcan", help=_BUS)
    piper.add_argument("--server", metavar="HOST:PORT,...", help=_SERVER)
    piper.add_argument("--log", type=Path, metavar="FILE", help="the run's log (default: the file's)")
    piper.add_argument("--rtc", choices=RTC_MODES, metavar="MODE", help=_RTC)
    piper.add_argument(traces.FLAG, metavar="URL", help=traces.HELP)
    piper.add_argument("--allow-untrained", action="store_true", help=_UNTRAINED)
    piper.add_argument("--dry-run", action="store_true", help=_DRY)
    piper.add_argument("--armed", action="store_true", help=_ARMED)
    piper.add_argument("--duration", type=float, metavar="S", help=_DURATION)
    piper.set_defaults(run=_piper, extra="piper")
    actions = piper.add_subparsers(dest="action", metavar="report")
    report = actions.add_parser("report", help="make a page of a run's log", description="Make a page of a run's log.")
    report.add_argument("file", type=Path, metavar="LOG")
    report.add_argument("--out", type=Path, metavar="FILE", help="the page (default: LOG with the ending .html)")
    report.set_defaults(run=_report)


def _report(args: argparse.Namespace) -> int:
    from wavserve.clients.piper import figures
    from wavserve.clients.piper.report import html

    run = figures.read(args.file)
    page = args.out or args.file.with_suffix(".html")
    try:
        page.write_text(html(run), encoding="utf-8")
    except OSError as error:
        raise InvalidRequest("--out", "a file that can be written", f"{page}: {error.strerror}") from error
    output.write(output.table(("figure", "value"), figures.rows(figures.figures(run))))
    output.progress(f"page: {page}")
    return 0


def _piper(args: argparse.Namespace) -> int:
    _refuse_flags(args)
    from wavserve.clients.piper import config as configs
    from wavserve.clients.piper.run import PiperRun, RunOptions

    config = configs.load(args.config) if args.config else configs.virtual_robot()
    if args.server:
        config = dataclasses.replace(config, server=dataclasses.replace(config.server, address=args.server))
    if args.log:
        config = dataclasses.replace(config, log=dataclasses.replace(config.log, path=str(args.log)))
    if args.rtc:
        config = dataclasses.replace(config, rtc=dataclasses.replace(config.rtc, mode=args.rtc))
    configs.check(config)
    sys.setswitchinterval(0.001)  # the control thread waits less for the others
    with traces.open_traces(args.traces, "wavserve-piper") as tracer:
        options = RunOptions(args.bus == "virtual", args.allow_untrained, args.dry_run, tracer)
        with PiperRun(config, options) as run:
            checks = run.check()
            if not _show(checks):
                return 1
            run.start(checks)
            code = Operator(run, args).attend()
    return _conclude(Path(config.log.path), code)


def _refuse_flags(args: argparse.Namespace) -> None:
    is_virtual = args.bus == "virtual"
    if args.config is None and not is_virtual:
        raise InvalidRequest("--config", "the robot's file, or --bus virtual", "neither")
    if args.allow_untrained and not is_virtual:
        raise InvalidRequest("--allow-untrained", "only with --bus virtual", f"--bus {args.bus}")
    if args.armed and not (is_virtual or args.dry_run):
        raise InvalidRequest("--armed", "only with --bus virtual or --dry-run", f"--bus {args.bus}")
    if args.duration is not None and not args.duration > 0:
        raise InvalidRequest("--duration", "seconds above 0", args.duration)
    if not args.armed and not sys.stdin.isatty():
        otherwise = ", or --armed" if is_virtual or args.dry_run else ""
        raise InvalidRequest("standard input", f"a terminal for the operator's keys{otherwise}", "no terminal")


def _show(checks: list[Check]) -> bool:
    """Prints the table. Whether every line is green."""
    rows = [("ok" if c.is_ok else "RED", c.subject, c.name, c.expected, c.actual) for c in checks]
    output.write(output.table(("", "of", "check", "expected", "found"), rows))
    num_red = sum(not check.is_ok for check in checks)
    if num_red:
        output.progress(f"{counted(num_red, 'red line')}: nothing moves")
    return not num_red


def _conclude(log: Path, code: int) -> int:
    from wavserve.clients.piper import figures

    try:
        rows = figures.rows(figures.figures(figures.read(log)))
    except (WavserveError, OSError) as error:  # the log is an aid; a disk that is full must not hide the exit code
        output.progress(f"no figures: {error}")
        return code
    output.write(output.table(("figure", "value"), rows))
    output.progress(f"a page of this run: wavserve piper report {log}")
    return code


class Operator:
    """Turns keys, signals and flags into orders until the robot has left. An emergency stop goes the shortest way."""

    def __init__(self, run: PiperRun, args: argparse.Namespace, leave_within_s: float = LEAVE_WITHIN_S) -> None:
        self._run, self._args, self._leave_within_s = run, args, leave_within_s
        # Not a SimpleQueue: its `get` never ends when a signal's handler takes longer than the timeout.
        self._wishes: queue.Queue[tuple[str, int]] = queue.Queue()
        self._num_holds = 0  # wishes to hold, to leave or to stop; an older wish to arm is void
        self._is_alone = False  # the terminal is gone
        self._leaves_at: float | None = None
        self._left_by = math.inf  # the control has obeyed by then, or never does
        self._has_left = False  # after a stop that nobody can recover
        self._may_recover_until = 0.0
        self._shown: tuple[object, ...] = ()
        self._shown_at = 0.0

    def attend(self) -> int:
        """The exit code: 1 after a fault or an emergency stop, else 0."""
        before = {number: signal.signal(number, self._on_signal) for number in _signals()}
        try:
            if self._args.armed:
                self._wishes.put(("a", 0))
                self._watch()
            else:
                from wavserve.clients.piper.keys import Keys

                with Keys(sys.stdin.fileno(), self._pressed, self._left_alone):
                    output.progress(KEYS)  # keys of before are lost
                    self._watch()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        failed = bool(self._run.failure) or self._run.is_running
        return 1 if failed or self._run.control.was_stopped or self._is_alone else 0

    def _pressed(self, key: str) -> None:
        """On the keys' own thread. What stops or holds waits for nothing, not even for a screen that is blocked."""
        key = key.lower()
        if key in {" ", "e"}:
            self._num_holds += 1
            self._run.control.emergency_stop("key")
        elif key == "h":
            self._give("hold")
        elif key == "q":
            self._give("leave")
        self._wishes.put((key, self._num_holds))

    def _left_alone(self) -> None:
        """The terminal is gone, and nobody could stop the robot."""
        self._is_alone = True
        self._give("leave")

    def _on_signal(self, number: int, frame: Any) -> None:
        if number == signal.SIGUSR1:
            self._num_holds += 1
            self._run.control.emergency_stop("signal")
        else:
            self._give("hold" if number == signal.SIGTSTP else "leave")

    def _give(self, order: str) -> None:
        self._num_holds += 1
        if order == "leave":
            self._left_by = min(self._left_by, time.monotonic() + self._leave_within_s)
        self._run.control.order(Order(order))

    def _watch(self) -> None:
        while self._run.is_running and time.monotonic() < self._left_by:
            with contextlib.suppress(queue.Empty):
                self._obey(*self._wishes.get(timeout=0.1))
            self._show_status()
            self._leave_if_nobody_can_recover()
            if self._leaves_at is not None and time.monotonic() >= self._leaves_at:
                self._leaves_at = None
                self._give("leave")
        if self._run.is_running:
            output.progress(
                f"the control did not leave within {self._leave_within_s:g} s; the arms keep their last target"
            )
        if self._run.failure:
            output.progress(f"a part ended by a bug; the arms keep their last target:\n{self._run.failure}")

    def _leave_if_nobody_can_recover(self) -> None:
        """Without keys, a stop ends the run: what is latched stays so."""
        if self._args.armed and not self._has_left and self._run.control.status.phase is Phase.STOPPED:
            self._has_left = True
            self._give("leave")

    def _obey(self, key: str, num_holds: int) -> None:
        """A key that does not stop or hold. `num_holds`: as it was when the key was pressed."""
        control = self._run.control
        phase = control.status.phase
        if key in {" ", "e"}:
            self._may_recover_until = 0.0
        elif num_holds != self._num_holds:
            return
        elif key == "a" and phase is Phase.DISARMED:
            if self._args.duration is not None and self._leaves_at is None:
                self._leaves_at = time.monotonic() + self._args.duration
            if (self._args.armed or _show(self._run.check())) and num_holds == self._num_holds:
                control.order(Order.ARM)
        elif key == "a":
            control.order(Order.ARM)
        elif key == "r" and phase is Phase.STOPPED:
            now = time.monotonic()
            if now <= self._may_recover_until:
                control.order(Order.RECOVER)
                self._may_recover_until = 0.0
            else:
                self._may_recover_until = now + CONFIRM_WITHIN_S
                output.progress(DROP_WARNING)

    def _show_status(self) -> None:
        status, counts, now = self._run.control.status, self._run.control.counts, time.monotonic()
        state = (status.phase, status.hold, status.waits)
        every_s = 1.0 if self._args.dry_run else STATUS_EVERY_S
        if state == self._shown and now - self._shown_at < every_s:
            return
        self._shown, self._shown_at = state, now
        steps, chunks = counted(counts.executed, "step"), counted(counts.chunks, "chunk")
        text = f"{status.phase.value:9} {steps}, {chunks}, {counts.clamped} clamped"
        text += f"; holds: {status.hold}" if status.hold else ""
        text += f"; no chunk: {status.waits}" if status.waits else ""
        text += "" if self._args.armed else _NEXT_KEY.get(status.phase.value, "")
        if self._args.dry_run and status.command:
            config = self._run.config
            named = zip(config.axis_names, config.axis_units, status.command, strict=True)
            text += "; would send " + ", ".join(f"{name} {value:.3f} {unit}" for name, unit, value in named)
        output.progress(text)


def _signals() -> tuple[signal.Signals, ...]:
    """Hold and leave, except for the last two: hold (Ctrl-Z must not suspend the control), and emergency stop."""
    return signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP, signal.SIGUSR1
