"""What a service leaves in folders that all processes share, and how tests wait."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from wavserve.backends.triton.server import PROGRAMS
from wavserve.system.processes import Process, commands_with

PATIENCE_S = 300.0


def tritons_of(service: int) -> set[Process]:
    """The server and model processes of a service, which may itself have exited."""
    return {each for each, command in commands_with("wavserve-", PROGRAMS).items() if f"-{service}-" in command}


def files_of(service: int) -> list[Path]:
    """The files of a service's Triton in shared memory and in the temporary folder."""
    folders = (Path("/dev/shm"), Path(tempfile.gettempdir()))
    return [path for folder in folders for path in folder.glob("wavserve-*") if f"-{service}-" in path.name]


def until(condition: Callable[[], bool], what: str, within_s: float = PATIENCE_S) -> None:
    """Waits until the condition holds. Fails after `within_s`."""
    ends = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < ends, f"not within {within_s:.0f} s: {what}"
        time.sleep(0.02)
