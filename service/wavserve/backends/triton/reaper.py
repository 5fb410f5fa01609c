"""Runs a server for a gateway, as a program between the two, and leaves no process and no file of it behind.

A server's children may outlive it: a model's process that waits for a dead server waits forever. A killed gateway
cannot clean up. The reaper can: the kernel signals it when its parent dies, and makes it the parent of every process
that a dead one leaves. It imports only the standard library, so that it starts fast, and knows nothing but a command
line. Usage: reaper.py PARENT_PID NAME FOLDER COMMAND...
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

STOP = signal.SIGUSR1
"""Ends the server. No other signal does: whatever stops all processes of a service must not stop its server first."""
SHM = Path("/dev/shm")
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def main(parent: int, name: str, folder: Path, command: list[str]) -> int:
    """Waits until the server exits or is to end, kills what is left, and returns the server's exit code.

    After a signal the code is 128 and the signal's number, as in a shell. When the parent is dead, it also removes
    `NAME-*` in shared memory and `folder`; otherwise the parent removes them.
    """
    libc = ctypes.CDLL(None)

    def arm() -> None:  # in the server: it dies with this process
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {STOP, signal.SIGCHLD})

    signal.pthread_sigmask(signal.SIG_BLOCK, {STOP, signal.SIGCHLD})
    libc.prctl(_PR_SET_PDEATHSIG, STOP)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    # its own group: a server that signals its group must not reach the gateway
    server = subprocess.Popen(command, process_group=0, preexec_fn=arm)  # noqa: PLW1509 - there is one thread
    codes: dict[int, int] = {}
    while server.pid not in codes and os.getppid() == parent:
        if signal.sigwait({STOP, signal.SIGCHLD}) == STOP:
            break
        codes |= _collect(os.WNOHANG)
    while True:
        for pid in _children():
            os.kill(pid, signal.SIGKILL)
        if not (collected := _collect(0)):
            break
        codes |= collected
    if os.getppid() != parent:
        for path in SHM.glob(f"{name}-*"):
            path.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
    code = codes[server.pid]
    return code if code >= 0 else 128 - code


def _collect(options: int) -> dict[int, int]:
    """Exit codes by pid of children that have ended; without WNOHANG it waits for one. Empty: there is none."""
    codes = {}
    with contextlib.suppress(ChildProcessError):
        while (waited := os.waitpid(-1, options))[0]:
            codes[waited[0]] = os.waitstatus_to_exitcode(waited[1])
            options = os.WNOHANG
    return codes


def _children() -> Iterator[int]:
    """Processes whose parent is this one; also those that it inherited."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_bytes().rpartition(b")")[2].split()[1]) == os.getpid():
                yield int(stat.parent.name)


if __name__ == "__main__":
    args = sys.argv[1:]
    sys.exit(main(int(args[0]), args[1], Path(args[2]), args[3:]))
