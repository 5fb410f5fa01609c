"""Runs a server for a gateway and sees to it that nothing of it stays: run as a program of its own, between the two.

A server's own children may outlive it (a model's process that waits for a word from a dead server waits forever), and a
gateway that is killed cannot clean up. This can: the kernel tells it when its parent is dead, and the server with all
its children is one process group. Knows the standard library only, so that it starts at once; told nothing but a
command. Usage: reaper.py PARENT_PID NAME FOLDER PATIENCE_S COMMAND...
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

SHM = Path("/dev/shm")
_PR_SET_PDEATHSIG = 1


def main(parent: int, name: str, folder: Path, patience_s: float, command: list[str]) -> int:
    """The server's exit code, once it and all its children are gone. `NAME-*` in shared memory and `folder` go with
    them when the parent is dead; else the parent removes them."""
    libc = ctypes.CDLL(None)

    def arm() -> None:  # in the server: it dies with this process, and takes signals again
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD})
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    # a group of its own: a terminal's interrupt is for the gateway, which still needs the server to drain
    server = subprocess.Popen(command, process_group=0, preexec_fn=arm)  # noqa: PLW1509 - there is one thread
    while server.poll() is None and os.getppid() == parent:
        if signal.sigwait({signal.SIGTERM, signal.SIGCHLD}) == signal.SIGTERM and os.getppid() == parent:
            server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(patience_s)
            break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    code = server.wait()
    if os.getppid() != parent:
        for path in SHM.glob(f"{name}-*"):
            path.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
    return code


if __name__ == "__main__":
    given = sys.argv[1:]
    sys.exit(main(int(given[0]), given[1], Path(given[2]), float(given[3]), given[4:]))
