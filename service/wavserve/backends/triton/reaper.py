"""Runs a server for a gateway, as a program between the two, and leaves no process and no file of it behind.

A server's children may outlive it: a model's process that waits for a dead server waits forever. A killed gateway
cannot clean up. The reaper can, because the kernel signals it when its parent dies, and the server and its children are
one process group. It imports only the standard library, so that it starts fast, and knows nothing but a command line.
Usage: reaper.py PARENT_PID NAME FOLDER PATIENCE_S COMMAND...
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
    """Waits until the server and all its children have exited, and returns the server's exit code.

    When the parent is dead, it also removes `NAME-*` in shared memory and `folder`; otherwise the parent removes them.
    """
    libc = ctypes.CDLL(None)

    def arm() -> None:  # in the server: it dies with this process, and receives signals again
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD})
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    # its own group: a terminal's interrupt must reach only the gateway, which needs the server while it drains
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
    args = sys.argv[1:]
    sys.exit(main(int(args[0]), args[1], Path(args[2]), float(args[3]), args[4:]))
