"""Runs `wavserve serve` as a child process: starts it on free loopback ports, waits until it is ready, always stops it.

Imports base packages only; the child needs the extra `server`. Knows the child's command line and addresses only.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from wavserve.system.processes import free_ports

READY_WITHIN_S = 300.0
"""Time limit of a start. A first start makes the tiny preset; the limit leaves ample time for a slow disk and torch."""
END_WITHIN_S = 60.0
"""Time limit of an end, beyond the `limits.drain_s` on the child's command line. It covers that setting's default."""
POLL_S = 0.1
SERVE = (sys.executable, "-m", "wavserve.cli", "serve")


@dataclass(frozen=True, slots=True)
class Child:
    """A running service. `http` is its base URL, `grpc` its `host:port`, `log` the file with its output."""

    process: subprocess.Popen[bytes]
    http: str
    grpc: str
    log: Path

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.http}/readyz", timeout=2.0, trust_env=False).is_success  # no proxy
        except httpx.TransportError:
            return False

    def stop(self) -> int:
        """Asks the service to drain and exit, and kills it when it does not. Returns its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(end_within_s(self.process.args))
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def tail(self, lines: int = 12) -> str:
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def start(
    log: Path,
    arguments: Sequence[str] = (),
    on_wait: Callable[[float], None] = lambda waited_s: None,
    command: Sequence[str] = SERVE,
    ports: tuple[int, int] | None = None,
) -> Child:
    """Starts `wavserve serve` with more arguments and returns once it is ready.

    While it waits, it calls `on_wait` with the seconds since the start. `command` may be another program that takes the
    same arguments. `ports`: of HTTP and gRPC; None: free ones. Raises RuntimeError when the service exits early and
    TimeoutError when it does not become ready; in both cases it stops the service.
    """
    http, grpc = ports or free_ports(2)
    line = [*command, f"--http-port={http}", f"--grpc-port={grpc}", *arguments]
    with log.open("wb") as output:
        process = subprocess.Popen(line, stdout=output, stderr=subprocess.STDOUT)
    child = Child(process, f"http://127.0.0.1:{http}", f"127.0.0.1:{grpc}", log)
    try:
        _wait(child, on_wait)
    except BaseException:
        child.stop()
        raise
    return child


def end_within_s(command: Any) -> float:
    """Seconds that a service with this command line has to end."""
    given = [str(each).rpartition("limits.drain_s=")[2] for each in command if "limits.drain_s=" in str(each)]
    return END_WITHIN_S + (float(given[-1]) if given else 0.0)


@contextmanager
def running(log: Path, arguments: Sequence[str] = (), command: Sequence[str] = SERVE) -> Iterator[Child]:
    """A service that runs for the duration of a block."""
    child = start(log, arguments, command=command)
    try:
        yield child
    finally:
        child.stop()


def raise_on_sigterm() -> None:
    """Makes SIGTERM raise SystemExit (exit code 143), so that `running` stops the child before this program exits."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def _wait(child: Child, on_wait: Callable[[float], None]) -> None:
    started = time.monotonic()
    while not child.is_ready():
        waited = time.monotonic() - started
        if child.process.poll() is not None:
            raise RuntimeError(f"the service exited with code {child.process.returncode}:\n{child.tail()}")
        if waited > READY_WITHIN_S:
            raise TimeoutError(f"the service was not ready after {waited:.0f} s:\n{child.tail()}")
        on_wait(waited)
        time.sleep(POLL_S)
