"""Identity of processes, files named after their owner, settings of processes that compute, and free ports.

The kernel reuses a pid, but never the pair of pid and start time. Works in full on Linux only: without /proc every
process counts as alive, which is safe where processes share nothing. Knows nothing of models.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import socket
import threading
from collections.abc import Collection, Iterator, MutableMapping
from pathlib import Path
from typing import NamedTuple

COMPUTE_ENVIRONMENT = {
    "GOMP_SPINCOUNT": "1000",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
}
"""Environment variables of processes that compute.

GOMP_SPINCOUNT: by default, idle OpenMP threads spin for milliseconds on a core that another process needs. On a shared
machine this makes a plan take many times as long.

MALLOC_*: by default, glibc gives every thread a heap of its own, and activations of varying sizes fragment it. With one
heap that is kept, resident memory stops growing, at a lower level."""

_MALLOPT = {"MALLOC_ARENA_MAX": -8, "MALLOC_MMAP_THRESHOLD_": -3, "MALLOC_TRIM_THRESHOLD_": -1}
"""glibc reads its variables only when a process starts. Later, `mallopt` sets the same values under these numbers."""

_PROC = Path("/proc")
_USER_FIELD, _SYSTEM_FIELD = 11, 12  # indices after the command's name in /proc/PID/stat; the values are clock ticks
_START_FIELD = 19  # since boot
_EXIT_CODE_FIELD = 49

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that stop a service. A terminal or an init system may send them to all of its processes at once."""

NICENESS = 5
"""Niceness of a model's process on a CPU.

The gateway on the same cores runs first, because it answers robots and, above all, refuses them in time."""


class Process(NamedTuple):
    """A process: its `pid`, and its start time `started` in the kernel's clock ticks since boot (0: unknown)."""

    pid: int
    started: int

    @classmethod
    def me(cls) -> Process:
        return cls(os.getpid(), _started(os.getpid()) or 0)

    @property
    def alive(self) -> bool:
        return self.started == 0 or _started(self.pid) == self.started


class Work(NamedTuple):
    """What the living threads of a process do."""

    used_s: float
    """processor seconds that they have used"""
    wanted: bool
    """whether one of them runs, or waits for a processor"""


def work_of(process: Process) -> Work | None:
    """What a process does; the calling thread is left out. None: there is no such process here, or nothing is known."""
    if process.started == 0 or not process.alive:
        return None
    me = str(threading.get_native_id())
    threads = [_fields(each / "stat") for each in _PROC.glob(f"{process.pid}/task/[0-9]*") if each.name != me]
    living = [fields for fields in threads if fields is not None]
    ticks = sum(int(fields[_USER_FIELD]) + int(fields[_SYSTEM_FIELD]) for fields in living)
    return Work(ticks / os.sysconf("SC_CLK_TCK"), any(fields[0] == "R" for fields in living))


def _started(pid: int) -> int | None:
    """The start time of a process; None when it has exited or is a zombie."""
    fields = _stat(pid)
    return None if fields is None or fields[0] in "ZX" else int(fields[_START_FIELD])


def _stat(pid: int) -> list[str] | None:
    """The kernel's facts on a process, after the name of its command; None when it does not exist."""
    return _fields(_PROC / str(pid) / "stat")


def _fields(path: Path) -> list[str] | None:
    """As `_stat`, of a process or of a thread."""
    try:
        # the kernel cuts the command's name at 15 bytes, which may split a character
        stat = path.read_bytes().decode(errors="replace")
    except OSError:
        return None
    return stat.rpartition(")")[2].split()


def owned_name(kind: str) -> str:
    """A name for files of this process, from which `orphans` finds out later whether the process is alive.

    It includes the pid namespace, because in another namespace the same pid is another process.
    """
    return f"{kind}-{_namespace()}-{os.getpid()}-{Process.me().started}"


def orphans(kind: str, folder: Path) -> list[Path]:
    """Files and folders whose names begin with the `owned_name` of a dead process, never of a living one."""
    return [path for path in folder.glob(f"{kind}-*") if _owner_is_dead(kind, path.name)]


def orphan_processes(kind: str, programs: Collection[str]) -> list[Process]:
    """Processes that run one of `programs` with the `owned_name` of a dead process on their command line."""
    return [process for process, command in _running(programs) if _owner_is_dead(kind, command)]


def commands_with(name: str, programs: Collection[str]) -> dict[Process, str]:
    """Processes that run one of `programs` with `name` on their command line, and their command lines."""
    return {process: command for process, command in _running(programs) if name in command}


def ended_children(parent: int) -> dict[int, int]:
    """Children of a process that have ended and that it has not waited for: exit codes by pid (negative: a signal)."""
    ended = {}
    for children in _PROC.glob(f"{parent}/task/*/children"):  # a file for each thread
        with contextlib.suppress(OSError):
            for pid in map(int, children.read_text().split()):
                if (fields := _stat(pid)) is not None and fields[0] == "Z":
                    ended[pid] = os.waitstatus_to_exitcode(int(fields[_EXIT_CODE_FIELD]))
    return ended


@contextlib.contextmanager
def stop_signals_blocked() -> Iterator[None]:
    """Blocks STOP_SIGNALS in this thread. Processes that it starts meanwhile, and their descendants, never get them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def kill(process: Process) -> None:
    """Kills a process. Does nothing when it has exited or belongs to another user."""
    if process.alive:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process.pid, signal.SIGKILL)


def prepare_to_compute(variables: MutableMapping[str, str]) -> None:
    """Applies COMPUTE_ENVIRONMENT to this process and adds it to `variables`, its environment, for its children.

    A variable that is already set keeps its value. Call this before torch is imported. Without glibc the variables
    about memory have no effect.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    for name, value in COMPUTE_ENVIRONMENT.items():
        if name not in variables and mallopt is not None and name in _MALLOPT:
            mallopt(_MALLOPT[name], int(value))
        variables.setdefault(name, value)


def _namespace() -> int:
    return (_PROC / "self/ns/pid").stat().st_ino


def _owner_is_dead(kind: str, text: str) -> bool:
    match = re.search(rf"{re.escape(kind)}-{_namespace()}-(\d+)-(\d+)(?!\d)", text)
    return match is not None and not Process(int(match[1]), int(match[2])).alive


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
    """Free loopback ports, all different."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(listening.getsockname()[1]) for listening in sockets]
    for listening in sockets:
        listening.close()
    return ports
