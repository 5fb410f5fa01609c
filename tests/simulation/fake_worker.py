"""A simulator's process without a simulator: `python -m tests.simulation.fake_worker FAULT`."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.simulation.fake import FakeEnvironment
from wavserve.core.errors import SimulationUnavailable
from wavserve.core.simulation import Environment
from wavserve.simulation.worker import serve


class FaultyEnvironment(FakeEnvironment):
    """Shows its fault at every step."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault

    def step(self, action: NDArray[np.floating[Any]]) -> bool:
        match self.fault:
            case "noise":
                sys.stdout.write("a line on standard output\n")
                sys.stdout.flush()
                os.write(1, b"and one that does not come from Python\n")
            case "crash":
                os.write(1, b"its last words\n")
                os.kill(os.getpid(), signal.SIGSEGV)
            case "stand still":
                time.sleep(1e6)
            case "stand still and keep the interpreter":
                ctypes.PyDLL(None).sleep(1_000_000)
            case "raise":
                raise ValueError("an array of the wrong shape")
        return super().step(action)


def opened(fault: str) -> Environment:
    if fault == "unavailable":
        raise SimulationUnavailable("install it")
    if fault == "raise at start":
        raise ValueError("no scene")
    if fault == "crash at start":
        os.abort()
    if fault == "stand still at start":
        time.sleep(1e6)
    return FaultyEnvironment(fault)


if __name__ == "__main__":
    serve(lambda: opened(sys.argv[1]))
