"""A `wavserve serve` as a child process: started on free loopback ports, waited for, always ended.

For whoever needs a service of their own for a while: the demo, load tests, our tests. Only base packages are imported
here; the child needs the extra `server`.
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

import httpx

from wavserve.system.processes import free_ports

READY_WITHIN_S = 300.0
"""A first start makes the tiny preset; a slow disk and a cold import of torch fit in with room to spare."""
END_WITHIN_S = 60.0
POLL_S = 0.1
SERVE = (sys.executable, "-m", "wavserve.cli", "serve")


@dataclass(frozen=True, slots=True)
class Child:
    """A running service. `http` is its base URL, `grpc` its `host:port`, `log` what it wrote on standard error."""

    process: subprocess.Popen[bytes]
    http: str
    grpc: str
    log: Path

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.http}/readyz", timeout=2.0).is_success
        except httpx.TransportError:
            return False

    def stop(self) -> int:
        """Asks it to drain and end, insists after a while; its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(END_WITHIN_S)
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
) -> Child:
    """Starts `wavserve serve` with more arguments and returns once it is ready; `on_wait` hears how long it takes.

    `command` is another program that takes the same arguments. Raises RuntimeError when it ends early, TimeoutError
    when it does not get ready; it is not left running then.
    """
    http, grpc = free_ports(2)
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


@contextmanager
def running(log: Path, arguments: Sequence[str] = (), command: Sequence[str] = SERVE) -> Iterator[Child]:
    """A service for the length of a block."""
    child = start(log, arguments, command=command)
    try:
        yield child
    finally:
        child.stop()


def end_with_us() -> None:
    """For a program with a child: SIGTERM becomes an exception (exit code 143), so that `running` ends the child."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def _wait(child: Child, on_wait: Callable[[float], None]) -> None:
    started = time.monotonic()
    while not child.is_ready():
        waited = time.monotonic() - started
        if child.process.poll() is not None:
            raise RuntimeError(f"the service ended with code {child.process.returncode}:\n{child.tail()}")
        if waited > READY_WITHIN_S:
            raise TimeoutError(f"the service was not ready after {waited:.0f} s:\n{child.tail()}")
        on_wait(waited)
        time.sleep(POLL_S)
