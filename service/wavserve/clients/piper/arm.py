"""One Piper arm over the vendor's SDK: feedback with age in, joint targets out. Radians, metres, seconds.

Every frame to the arm is sent under one lock, because the SDK's send buffer is shared. After an emergency stop the lock
lets no target through. The SDK's own limits stay off: they would clamp what is measured. Knows no policy and no clock
of control.
"""

from __future__ import annotations

import math
import threading
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from piper_sdk import C_PiperInterface_V2, LogLevel

from wavserve.clients.piper.feedback import Feedback, FeedbackReader
from wavserve.clients.piper.limits import AXIS_RANGES, NUM_AXES, NUM_JOINTS
from wavserve.core.errors import InvalidRequest, NotReady
from wavserve.core.types import Clock

BITRATE = 1_000_000
CAN_TYPE = "280"
"""of a network device, as Linux numbers them"""
GRIPPER_EFFORT = 1000
"""0.001 N m"""
MOVE_SPEED_PERCENT = 100
"""The arm's own speed limit. The steps of the commands are smaller, and are what limits the speed."""

ASK_AGAIN_S = 0.3
CLOSE_WITHIN_S = 1.0

_UNITS_PER_RAD = 1e3 * 180.0 / math.pi
_UNITS_PER_M = 1e6
_MOVE_J, _NO_MIT, _CAN_CONTROL = 1, 0, 1
_STOP, _RESET = 1, 2
_GRIPPER_ENABLE = 1


class Arm:
    """An arm on a CAN channel of its own. Any thread may read; the lock orders all that send.

    `interface` is python-can's name of the bus: `socketcan`, or `virtual` for a simulated arm.
    """

    def __init__(self, name: str, channel: str, interface: str = "socketcan", clock: Clock = time.monotonic) -> None:
        self.name = name
        self.channel = channel
        self._interface = interface
        self._lock = threading.RLock()  # a signal handler may stop the arm while its own thread does
        self._reader = FeedbackReader(clock)
        self._sdk: Any = None
        self._port: Any = None
        self._num_failed_sends = 0
        self._stopped = False

    def connect(self) -> None:
        """Opens the channel, starts reading, and asks the arm for its limits and firmware. Moves nothing.

        Raises NotReady when the channel cannot be opened.
        """
        real = self._interface == "socketcan"
        if real and (problem := channel_problem(self.channel)):
            raise NotReady(f"arm {self.name}: CAN channel {self.channel} cannot be opened: {problem}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the SDK passes python-can an old argument
            try:
                sdk = C_PiperInterface_V2(
                    self.channel, judge_flag=False, can_auto_init=False, logger_level=LogLevel.CRITICAL
                )
                sdk.CreateCanBus(self.channel, self._interface, BITRATE, judge_flag=real)
            except (ConnectionError, OSError, ValueError, RuntimeError) as error:
                raise NotReady(f"arm {self.name}: CAN channel {self.channel} cannot be opened: {error}") from error
        self._sdk, self._port = sdk, sdk.GetCanBus()
        if self._port.recv_bus is None:
            raise NotReady(f"arm {self.name}: CAN channel {self.channel} cannot be opened ({self._interface})")
        self._share_virtual_bus()
        self._watch()
        with self._lock:
            sdk.ConnectPort(piper_init=True)

    def latest(self) -> Feedback:
        return self._reader.latest()

    @property
    def num_failed_sends(self) -> int:
        """Frames that did not leave. The SDK itself only logs them."""
        return self._num_failed_sends

    @property
    def is_stopped(self) -> bool:
        return self._stopped

    def firmware(self) -> str | None:
        """Such as `S-V1.8-2`; None until the arm has told it."""
        text = self._sdk.GetPiperFirmwareVersion()
        return text if isinstance(text, str) else None

    def joint_limits(self, timeout_s: float = 2.0) -> tuple[tuple[float, float] | None, ...]:
        """The range of each joint as the arm itself has it; None where it did not answer. Takes up to 6 timeouts.

        Each motor is asked alone: the SDK's table of all motors may show one motor's answer for all.
        """
        return tuple(self._joint_limit(motor, timeout_s) for motor in range(1, NUM_JOINTS + 1))

    def enable(self) -> bool:
        """Asks the drivers to hold the arm; `latest().is_enabled` tells when they do. False: the arm is stopped."""
        with self._lock:
            if not self._stopped:
                self._sdk.EnableArm(7)
            return not self._stopped

    def command(self, axes: Sequence[float]) -> bool:
        """Sends a target `[7]`: six joints in rad, the gripper in m. False: the arm is stopped, and nothing was sent.

        Raises InvalidRequest for another length, a value that is not finite, or one outside the arm's ranges.
        """
        _check(self.name, axes)
        joints = [round(angle * _UNITS_PER_RAD) for angle in axes[:NUM_JOINTS]]
        opening = round(axes[NUM_JOINTS] * _UNITS_PER_M)
        with self._lock:
            if self._stopped:
                return False
            self._sdk.MotionCtrl_2(_CAN_CONTROL, _MOVE_J, MOVE_SPEED_PERCENT, _NO_MIT)
            self._sdk.JointCtrl(*joints)
            self._sdk.GripperCtrl(opening, GRIPPER_EFFORT, _GRIPPER_ENABLE, 0)
        return True

    def emergency_stop(self) -> None:
        """Stops the arm, from any thread and any number of times. It sinks with damping; no target follows."""
        with self._lock:
            self._stopped = True
            if self._sdk is not None:
                self._sdk.EmergencyStop(_STOP)

    def reset_and_drop(self) -> None:
        """Ends the emergency stop. THE ARM LOSES POWER AND FALLS: the operator holds it."""
        with self._lock:
            self._sdk.EmergencyStop(_RESET)
            self._stopped = False

    def close(self) -> None:
        """Ends the connection. The arm stays enabled, and keeps its last target. It waits for no stuck send."""
        if self._sdk is not None and self._lock.acquire(timeout=CLOSE_WITHIN_S):
            try:
                self._sdk.DisconnectPort()
            finally:
                self._lock.release()

    def _share_virtual_bus(self) -> None:
        """One virtual bus for both directions, as the SDK itself has on other systems.

        A second one would get the arm's own targets back, and keep every frame because nobody reads it.
        """
        port = self._port
        if self._interface == "virtual" and port.send_bus is not port.recv_bus:
            port.send_bus.shutdown()
            port.send_bus = port.recv_bus

    def _watch(self) -> None:
        """Puts us between the SDK and its port: each frame is copied after decoding, each failed send is counted."""
        decode, send = self._port.callback_function, self._port.SendCanMessage
        sent = self._port.CAN_STATUS.SEND_MESSAGE_SUCCESS

        def receive(frame: Any) -> None:
            decode(frame)
            self._reader.received(frame.arbitration_id, frame.timestamp, self._sdk)

        def counted(*args: Any, **options: Any) -> Any:
            result = send(*args, **options)
            self._num_failed_sends += result is not sent
            return result

        self._port.callback_function, self._port.SendCanMessage = receive, counted

    def _joint_limit(self, motor: int, timeout_s: float) -> tuple[float, float] | None:
        began, asked_s = time.monotonic(), -math.inf
        while (now := time.monotonic()) - began < timeout_s:
            if now - asked_s > ASK_AGAIN_S:  # a frame may be lost
                asked_s = now
                with self._lock:
                    self._sdk.SearchMotorMaxAngleSpdAccLimit(motor, 1)
            answer = self._sdk.GetCurrentMotorAngleLimitMaxVel().current_motor_angle_limit_max_vel
            if answer.motor_num == motor:
                return math.radians(answer.min_angle_limit / 10), math.radians(answer.max_angle_limit / 10)
            time.sleep(0.002)
        return None


def channel_problem(channel: str, devices: Path = Path("/sys/class/net")) -> str:
    """Why a CAN channel of this machine cannot be used; empty: it can. The SDK itself would only log the reason."""
    device = devices / channel
    if "/" in channel or not device.exists():
        return "there is no such channel; `ip link` lists them"
    if (device / "type").read_text(encoding="ascii").strip() != CAN_TYPE:
        return "it is no CAN channel; `ip link show type can` lists those"
    state = (device / "operstate").read_text(encoding="ascii").strip()
    if state not in {"up", "unknown"}:  # a virtual CAN channel that is up does not know it
        return f"it is {state}; `ip link set {channel} up type can bitrate {BITRATE}` brings it up"
    return ""


def _check(name: str, axes: Sequence[float]) -> None:
    if len(axes) != NUM_AXES:
        raise InvalidRequest(f"command of arm {name}", f"{NUM_AXES} numbers", len(axes))
    for i, (value, (low, high)) in enumerate(zip(axes, AXIS_RANGES, strict=True)):
        if not low <= value <= high:  # also refuses NaN
            raise InvalidRequest(f"command of arm {name}, axis {i + 1}", f"{low:.4f} to {high:.4f}", value)
