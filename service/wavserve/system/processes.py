"""Who a process is, beyond its number: a pid is given away again, a pid and its start time are not.

Used where processes share a file: the arena's readers, and the cleaning of what a dead process left. Linux only in its
full form; without /proc every process counts as alive, which is right where nothing is shared. Also what a process is
told before it computes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import socket
from collections.abc import Collection, Iterator, MutableMapping
from pathlib import Path
from typing import NamedTuple

COMPUTING = {
    "GOMP_SPINCOUNT": "1000",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
}
"""Variables of processes that compute.

OpenMP's threads spin for milliseconds otherwise, waiting for work, on a core that another model's process or anybody
else needs; on a shared machine that makes a plan many times as long. And glibc gives every thread a heap of its own,
which activations of ever new sizes fill with holes: with one heap that is kept, resident memory settles, lower."""

_MALLOPT = {"MALLOC_ARENA_MAX": -8, "MALLOC_MMAP_THRESHOLD_": -3, "MALLOC_TRIM_THRESHOLD_": -1}
"""glibc reads its variables as a process starts; later it is told by `mallopt`, which has these numbers for them."""

_PROC = Path("/proc")
_START_FIELD = 19  # of those behind the command's name in /proc/PID/stat: clock ticks since boot


NICENESS = 5
"""Of a model's process on a CPU: who answers robots on the same cores goes first, above all who refuses them."""


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
        told = (_PROC / str(pid) / "stat").read_bytes().decode(errors="replace")  # names are cut at 15 bytes
        fields = told.rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[_START_FIELD])


def owned_name(kind: str) -> str:
    """A name for files of this process, by which `orphans` tells later whether it still lives.

    It also names the pid namespace: elsewhere, the same pid is somebody else.
    """
    return f"{kind}-{_namespace()}-{os.getpid()}-{Process.me().started}"


def orphans(kind: str, folder: Path) -> list[Path]:
    """Files and folders whose names begin with a dead process's `owned_name`; never a living one's."""
    return [path for path in folder.glob(f"{kind}-*") if _owner_is_dead(kind, path.name)]


def orphan_processes(kind: str, programs: Collection[str]) -> list[Process]:
    """Processes that run one of `programs` with a dead process's `owned_name` on their command line."""
    return [process for process, command in _running(programs) if _owner_is_dead(kind, command)]


def commands_naming(name: str, programs: Collection[str]) -> dict[Process, str]:
    """Processes that run one of `programs` with `name` on their command line, and those lines."""
    return {process: command for process, command in _running(programs) if name in command}


def end(process: Process) -> None:
    """Kills a process, unless it ended before or is another user's."""
    if process.alive:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process.pid, signal.SIGKILL)


def prepare_to_compute(variables: MutableMapping[str, str]) -> None:
    """Gives this process what COMPUTING says and `variables`, its own, leaves open; its children inherit it.

    Before torch is imported. Without glibc the part about memory has no effect.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    for name, value in COMPUTING.items():
        if name not in variables and mallopt is not None and name in _MALLOPT:
            mallopt(_MALLOPT[name], int(value))
        variables.setdefault(name, value)


def _namespace() -> int:
    return (_PROC / "self/ns/pid").stat().st_ino


def _owner_is_dead(kind: str, text: str) -> bool:
    found = re.search(rf"{re.escape(kind)}-{_namespace()}-(\d+)-(\d+)(?!\d)", text)
    return found is not None and not Process(int(found[1]), int(found[2])).alive


def _running(programs: Collection[str]) -> Iterator[tuple[Process, str]]:
    """Living processes and their command lines."""
    for folder in _PROC.glob("[0-9]*"):
        started = _started(int(folder.name))
        try:
            command = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if started is not None and Path(command.partition("\0")[0]).name in programs:
            yield Process(int(folder.name), started), command.replace("\0", " ")


def free_ports(count: int) -> list[int]:
    """Loopback ports nobody listens on, all different."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(opened.getsockname()[1]) for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports
