"""Puts one robot together: arms, cameras, link, control. Starts the parts in order, and ends them in the reverse order.

It knows no terminal: the command gives orders and shows what this module tells.
"""

from __future__ import annotations

import dataclasses
import datetime
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from wavserve.clients.piper import link, preflight, rtc, vectors
from wavserve.clients.piper.arm import Arm
from wavserve.clients.piper.cameras import Camera
from wavserve.clients.piper.config import PiperConfig
from wavserve.clients.piper.control import Control, Robot
from wavserve.clients.piper.link import PolicyLink
from wavserve.clients.piper.log import RunLog
from wavserve.clients.piper.loop import RateLoop
from wavserve.clients.piper.mailbox import Mailbox
from wavserve.clients.piper.phases import Order, Phase
from wavserve.clients.piper.playback import player_config
from wavserve.clients.piper.preflight import Check, Demands
from wavserve.clients.piper.vectors import Axes
from wavserve.clients.plan_client import PlanClient
from wavserve.clients.robot_client import RobotClient
from wavserve.core.errors import WavserveError
from wavserve.core.messages import PolicyInfo
from wavserve.core.tracing import Tracer

FEEDBACK_WITHIN_S = 2.0
LEAVE_WITHIN_S = 3.0


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How this run differs from what the file says."""

    is_virtual: bool = False
    allow_untrained: bool = False
    is_dry: bool = False
    tracer: Tracer = field(default_factory=Tracer)
    """begins the spans of the observations"""


class PiperRun:
    """A context manager: inside, arms and cameras are open. `check` first, then `start`."""

    def __init__(self, config: PiperConfig, options: RunOptions) -> None:
        self.config, self._options = config, options
        self._stack = ExitStack()
        self._mailbox = Mailbox()
        self._arms = [Arm(arm.name, arm.channel, _interface(options)) for arm in config.arms]
        self.cameras = [Camera(camera, config.watch) for camera in config.cameras]
        self._policy: PolicyInfo | None = None
        self._control: Control | None = None
        self._loop: RateLoop | None = None
        self._link: PolicyLink | None = None
        self._client: RobotClient | None = None
        self._log: RunLog | None = None

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def check(self) -> list[Check]:
        """The table of checks. The policy's part is one red line while no service answers."""
        demands = Demands(self._options.is_virtual, self._options.allow_untrained)
        checks = preflight.hardware_checks(self.config, self._arms, self.cameras)
        try:
            with PlanClient(self.config.server.address, robot_id=self.config.robot_id) as client:
                self._policy = client.policy(timeout_s=5.0)
        except WavserveError as error:
            checks.append(Check("service", "answers", self.config.server.address, error.message, False))
        else:
            checks += preflight.contract_checks(self.config, self._policy, demands, self._measured())
        if self._log is not None:
            for each in checks:
                self._log.write("check", **dataclasses.asdict(each))
        return checks

    def start(self, checks: Sequence[Check]) -> None:
        """Connects to the service and begins the control loop, disarmed.

        Raises the client's errors, and ValueError when a check is red: then nothing starts.
        """
        if self._policy is None or not all(check.is_ok for check in checks):
            raise ValueError("a check is red")
        config, policy = self.config, self._policy
        self._log = log = RunLog(Path(config.log.path), round(config.log.max_mb * 1e6), config.log.num_files)
        self._stack.callback(log.close)
        log.write("start", **self._facts(policy))
        for each in checks:
            log.write("check", **dataclasses.asdict(each))
        asked = link.options(config, policy.digest, self._options.tracer)
        self._client = client = RobotClient(config.server.address, link.description(config), asked)
        self._stack.callback(client.close)
        welcome = client.connect()
        self._link = PolicyLink(config, client, self.cameras, self._mailbox, log)
        self._control = control = Control(
            config, welcome.policy, Robot(self._arms, self._mailbox, log, self._options.is_dry)
        )

        def tick(late_s: float) -> bool:
            control.tick(late_s)
            return control.status.phase is Phase.LEFT

        self._loop = RateLoop(tick, config.dt_s)
        self._link.start()
        self._loop.start()

    @property
    def control(self) -> Control:
        """After `start`."""
        assert self._control is not None
        return self._control

    @property
    def failure(self) -> str:
        """A bug of ours that ended a thread; empty: none did."""
        loop, policy_link = self._loop, self._link
        return (loop.failure if loop else "") or (policy_link.failure if policy_link else "")

    @property
    def is_running(self) -> bool:
        return self._loop is not None and self._loop.is_running

    @property
    def num_lost_lines(self) -> int:
        return 0 if self._log is None else self._log.num_dropped

    def close(self) -> None:
        """Comes to rest first. The arms stay enabled, and keep their last target."""
        if self._loop is not None and self._control is not None and self._log is not None:
            self._control.order(Order.LEAVE)
            self._loop.join(LEAVE_WITHIN_S)
            counts = dataclasses.asdict(self._control.counts)
            self._log.write("end", dropped_ticks=self._loop.num_dropped, failure=self.failure, **counts)
        if self._link is not None:
            self._link.close()
        self._stack.close()

    def _open(self) -> None:
        if self._options.is_virtual:
            from wavserve.clients.piper.simulated import SimulatedArm

            for arm in self.config.arms:
                self._stack.enter_context(SimulatedArm(arm.channel))
        for each in self._arms:
            each.connect()
            self._stack.callback(each.close)
        for camera in self.cameras:
            camera.start()
            self._stack.callback(camera.close)
        _wait(FEEDBACK_WITHIN_S, self._sees)

    def _sees(self) -> bool:
        ready = (each.latest().drivers_at_s is not None and each.firmware() is not None for each in self._arms)
        return all(ready) and all(camera.problem() is None for camera in self.cameras)

    def _measured(self) -> Axes | None:
        """`[A]`, in rad and m; None until every arm has reported its pose."""
        axes = [pose for arm in self._arms if (pose := arm.latest().axes) is not None]
        return np.array(axes).reshape(-1) if len(axes) == len(self._arms) else None

    def _facts(self, policy: PolicyInfo) -> dict[str, object]:
        config, player = self.config, player_config(self.config, policy)
        return {
            "robot_id": config.robot_id,
            "policy": policy.name,
            "digest": policy.digest,
            "untrained": policy.untrained,
            "bus": _interface(self._options),
            "dry_run": self._options.is_dry,
            "instruction": config.instruction,
            "version": version("wavserve"),
            "when": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "names": config.axis_names,
            "units": config.axis_units,
            "control_hz": config.control_hz,
            "rtc": dataclasses.asdict(rtc.settings(config, policy)),
            "spans": player.action_range,
            "max_steps": vectors.Units(config).to_policy(vectors.max_steps(config)),
        }


def _interface(options: RunOptions) -> str:
    return "virtual" if options.is_virtual else "socketcan"


def _wait(within_s: float, holds: Callable[[], bool]) -> None:
    """Until something holds, or the time is over: the checks tell what is missing."""
    deadline = time.monotonic() + within_s
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
