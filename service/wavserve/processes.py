"""Who a process is, beyond its number: a pid is given away again, a pid and its start time are not.

Used where processes share a file: the arena's readers, and the cleaning of what a dead process left. Linux only in its
full form; without /proc every process counts as alive, which is right where nothing is shared.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
from collections.abc import Callable
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


_PR_SET_PDEATHSIG = 1


def dies_with_parent() -> Callable[[], None]:
    """For `preexec_fn`: the child is killed when the thread that started it ends, however it ends. Linux only."""
    libc, parent = ctypes.CDLL(None), os.getpid()

    def arm() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before this took hold
            os._exit(1)

    return arm


def owned_name(kind: str) -> str:
    """A name for files of this process, by which `orphans` tells later whether it still lives.

    It also names the pid namespace: elsewhere, the same pid is somebody else.
    """
    return f"{kind}-{_namespace()}-{os.getpid()}-{Process.me().started}"


def orphans(kind: str, folder: Path) -> list[Path]:
    """Files and folders whose names begin with a dead process's `owned_name`; never a living one's."""
    pattern = re.compile(rf"{re.escape(kind)}-{_namespace()}-(\d+)-(\d+)(?!\d)")
    named = [(path, pattern.match(path.name)) for path in folder.glob(f"{kind}-*")]
    return [path for path, name in named if name and not Process(int(name[1]), int(name[2])).alive]


def _namespace() -> int:
    return (_PROC / "self/ns/pid").stat().st_ino
