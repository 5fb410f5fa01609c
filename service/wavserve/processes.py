"""Who a process is, beyond its number: a pid is given away again, a pid and its start time are not.

Used where processes share a file: the arena's readers, and the cleaning of what a dead process left. Linux only in its
full form; without /proc every process counts as alive, which is right where nothing is shared.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc")
_START_FIELD = 19  # of those behind the command's name in /proc/PID/stat: clock ticks since boot


class Process(NamedTuple):
    """A process: `pid` and `started`, in the kernel's clock ticks since boot (0: not known)."""

    pid: int
    started: int

    @classmethod
    def me(cls) -> Process:
        return cls(os.getpid(), _started(os.getpid()) or 0)

    @property
    def alive(self) -> bool:
        return self.started == 0 or _started(self.pid) == self.started


def _started(pid: int) -> int | None:
    """When a process began; None when it is gone, or dead and not yet buried."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[_START_FIELD])
