"""A virtual bus with simulated arms, real SDK connections to them, and a listener that records every frame."""

from __future__ import annotations

import itertools
import math
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import can

from wavserve.clients.piper.arm import Arm
from wavserve.clients.piper.control import Control
from wavserve.clients.piper.phases import Phase
from wavserve.clients.piper.simulated import SimulatedArm

_numbers = itertools.count()
TARGET_FRAMES = range(0x151, 0x15A)
STOP_FRAME = 0x150
ENABLE_FRAME = 0x471


def channel() -> str:
    """A new name each time: the SDK keeps one object for each name."""
    return f"test-{next(_numbers)}"


@dataclass(frozen=True, slots=True)
class Sent:
    """A frame that reached the bus, and when (monotonic seconds)."""

    frame_id: int
    data: bytes
    at_s: float


@dataclass(frozen=True, slots=True)
class Target:
    """Six joints in rad, as three frames of one command told them."""

    joints: tuple[float, ...]
    at_s: float


class Listener:
    """Records every frame to the arm that passes on a channel."""

    def __init__(self, name: str) -> None:
        self._bus = can.Bus(channel=name, interface="virtual")
        self._bus.set_filters([{"can_id": 0x150, "can_mask": 0x7F0}, {"can_id": 0x471, "can_mask": 0x7FF}])
        self.frames: list[Sent] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.is_set():
            frame = self._bus.recv(0.02)
            if frame is not None:
                self.frames.append(Sent(frame.arbitration_id, bytes(frame.data), time.monotonic()))

    def of(self, *frame_ids: int) -> list[Sent]:
        return [frame for frame in list(self.frames) if frame.frame_id in frame_ids]

    def targets(self) -> list[Target]:
        """The joint targets that the arm got, in order."""
        found, parts = [], []
        for frame in self.of(0x155, 0x156, 0x157):
            if frame.frame_id == 0x155:
                parts = []
            parts += [math.radians(unit / 1000) for unit in struct.unpack(">ii", frame.data)]
            if frame.frame_id == 0x157 and len(parts) == 6:
                found.append(Target(tuple(parts), frame.at_s))
        return found

    def num_between(self, since: float, until: float) -> int:
        """How many targets the arm got in that time: control steps, which a busy machine delays and never adds to."""
        return sum(since < target.at_s < until for target in self.targets())

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._bus.shutdown()


@contextmanager
def connected(name: str = "left") -> Iterator[tuple[Arm, SimulatedArm, Listener]]:
    """A simulated arm, its connection, a listener."""
    on = channel()
    listener = Listener(on)
    with SimulatedArm(on) as simulated:
        arm = Arm(name, on, "virtual")
        arm.connect()
        try:
            eventually(lambda: arm.latest().axes is not None and arm.latest().drivers_at_s is not None)
            yield arm, simulated, listener
        finally:
            arm.close()
            listener.close()


def enable(arm: Arm) -> None:
    axes = arm.latest().axes
    assert axes is not None
    arm.command(axes)
    arm.enable()
    eventually(lambda: arm.latest().is_enabled and arm.latest().takes_commands)


def executes(control: Control, at_least: int) -> None:
    """Waits until the robot has executed that many more steps of chunks. A robot that is stopped fails at once."""
    goal = control.counts.executed + at_least

    def has_moved() -> bool:
        assert control.status.phase is not Phase.STOPPED, f"stopped after a fault: {control.status.hold}"
        return control.counts.executed >= goal

    try:
        eventually(has_moved)
    except AssertionError as error:
        raise AssertionError(f"{control.counts} of {goal} steps, {control.status}") from error


def eventually(holds: Callable[[], bool], within_s: float = 120.0) -> None:
    """Waits until something holds; the bound is generous, for a busy machine."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.005)
