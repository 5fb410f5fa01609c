"""A simulated Piper arm on python-can's virtual bus: it answers frames as the arm does, with switches for faults.

Frames are made by hand, so that the SDK is checked against the wire and not against itself. Joints follow their targets
at a limited speed. Only a run on the virtual bus loads this module. Radians and metres in its own interface.
"""

from __future__ import annotations

import math
import struct
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import can

from wavserve.clients.piper.limits import (
    CONTROL_MODE_CAN,
    DRIVER_ENABLED,
    JOINT_RANGES,
    MAX_JOINT_SPEED,
    NUM_JOINTS,
    STATUS_EMERGENCY_STOP,
)

REST_POSE = (0.05, 1.0, -1.0, 0.05, 0.1, 0.05, 0.02)
"""six joints in rad and the gripper in m: far from the ends of every joint, and no zero in it"""
FIRMWARE = b"S-V1.8-2"

_PERIOD_S = 1 / 200
_DRIVER_EVERY = 5  # periods
_UNITS_PER_RAD = 1e3 * 180.0 / math.pi
_UNITS_PER_M = 1e6
_GRIPPER_SPEED = 0.2  # m/s
_PAIR = struct.Struct(">ii")


class SimulatedArm:
    """An arm that runs on a thread of its own until `close`. The switches may be set at any time, by any thread."""

    def __init__(self, channel: str, pose: Sequence[float] = REST_POSE) -> None:
        self.silent = False
        """sends nothing, as when its cable is pulled; it still moves"""
        self.fault_status = 0
        """arm status that it reports, such as 7 for a collision"""
        self.driver_flags = 0
        """fault bits that each driver reports"""
        self.deaf = False
        """gets nothing, as when its cable is pulled"""
        self.torn = False
        """leaves out the second frame of each pose"""
        self.taken_over = False
        """reports that another controller has it, as after its teaching button"""
        self._axes = list(pose)
        self._targets = list(pose)
        self._enabled = False
        self._control_mode = 0
        self._stopped = False
        self._bus = can.Bus(channel=channel, interface="virtual")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"simulated arm {channel}", daemon=True)
        self._thread.start()

    @property
    def axes(self) -> tuple[float, ...]:
        """Where it is: six joints in rad, the gripper in m."""
        return tuple(self._axes)

    @property
    def is_enabled(self) -> bool:
        return self._enabled

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._bus.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _run(self) -> None:
        next_at, tick = time.monotonic(), 0
        while not self._ended.is_set():
            while (frame := self._bus.recv(max(0.0, next_at - time.monotonic()))) is not None:
                if not self.deaf:
                    self._take(frame.arbitration_id, bytes(frame.data))
                if time.monotonic() >= next_at:
                    break
            self._move(_PERIOD_S)
            if not self.silent:
                self._report(tick)
            tick += 1
            next_at = max(next_at + _PERIOD_S, time.monotonic() - 0.1)  # after a stall it catches up 0.1 s at most

    def _take(self, frame_id: int, data: bytes) -> None:
        match frame_id:
            case 0x150 if data[0] == 1:
                self._stopped = True
                self._targets = list(self._axes)
            case 0x150 if data[0] == 2:
                self._stopped = self._enabled = False
                self._control_mode = 0
            case 0x151:
                self._control_mode = data[0]
            case 0x155 | 0x156 | 0x157 if self._obeys:
                first = 2 * (frame_id - 0x155)
                self._targets[first : first + 2] = [unit / _UNITS_PER_RAD for unit in _PAIR.unpack(data)]
            case 0x159 if self._obeys:
                self._targets[NUM_JOINTS] = struct.unpack(">i", data[:4])[0] / _UNITS_PER_M
            case 0x471:
                self._enabled = data[1] == 2 and not self._stopped
            case 0x472:
                self._answer_limits(data)
            case 0x4AF:
                self._send(0x4AF, FIRMWARE)

    @property
    def _obeys(self) -> bool:
        return self._enabled and not self._stopped and self._control_mode == CONTROL_MODE_CAN

    def _move(self, dt_s: float) -> None:
        if not self._obeys:
            return
        for i, target in enumerate(self._targets):
            most = (MAX_JOINT_SPEED if i < NUM_JOINTS else _GRIPPER_SPEED) * dt_s
            self._axes[i] += max(-most, min(most, target - self._axes[i]))

    def _report(self, tick: int) -> None:
        status = STATUS_EMERGENCY_STOP if self._stopped else self.fault_status
        mode = 2 if self.taken_over else self._control_mode
        moving = any(abs(a - b) > 1e-4 for a, b in zip(self._axes, self._targets, strict=True))
        self._send(0x2A1, bytes((mode, status, 1, 0, moving, 0, 0, 0)))
        units = [round(angle * _UNITS_PER_RAD) for angle in self._axes[:NUM_JOINTS]]
        for i in range(3):
            if not (self.torn and i == 1):
                self._send(0x2A5 + i, _PAIR.pack(*units[2 * i : 2 * i + 2]))
        self._send(0x2A8, struct.pack(">ihBB", round(self._axes[NUM_JOINTS] * _UNITS_PER_M), 0, 0, 0))
        if tick % _DRIVER_EVERY == 0:
            flags = self.driver_flags | (DRIVER_ENABLED if self._enabled else 0)
            for i in range(NUM_JOINTS):
                self._send(0x261 + i, struct.pack(">HhbBH", 240, 30, 35, flags, 0))

    def _answer_limits(self, data: bytes) -> None:
        motor, content = data[0], data[1]
        if content == 1 and 1 <= motor <= NUM_JOINTS:
            low, high = (round(math.degrees(limit) * 10) for limit in JOINT_RANGES[motor - 1])
            self._send(0x473, struct.pack(">BhhhB", motor, high, low, 3000, 0))

    def _send(self, frame_id: int, data: bytes) -> None:
        self._bus.send(can.Message(arbitration_id=frame_id, data=data.ljust(8, b"\0"), is_extended_id=False))
