"""Peers of a robot's client: a server that can be absent or stopped, a black hole, a proxy, a name server.

`python -m tests.clients.servers PORT` serves `Reset` until it is killed, for tests that stop a whole process.
"""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import grpc

from wavserve.pb import wavserve_pb2 as pb

SERVICE = "wavserve.v1.PlanService"
_SERVFAIL, _FOUND, _A = b"\x81\x82", b"\x81\x80", 1


@contextmanager
def resetting(port: int = 0) -> Iterator[str]:
    """A real gRPC server that answers `Reset`. Gives its address."""
    methods = {"Reset": grpc.unary_unary_rpc_method_handler(lambda raw, _: pb.ResetResponse().SerializeToString())}
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield f"127.0.0.1:{bound}"
    finally:
        server.stop(None).wait(10)


@contextmanager
def resetting_process() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`resetting` in a process of its own. Gives its address and the process."""
    command = [sys.executable, "-m", "tests.clients.servers"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip(), process
        finally:
            process.kill()


@dataclass
class Peer:
    """A listener, and when each connection to it was made (monotonic seconds)."""

    address: str
    connections: list[float] = field(default_factory=list)


@contextmanager
def black_hole() -> Iterator[str]:
    """An address that accepts connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def closing() -> Iterator[Peer]:
    """Accepts connections and closes each at once, as a forwarder does whose server is away."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = Peer(f"127.0.0.1:{listener.getsockname()[1]}")

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    peer.connections.append(time.monotonic())
                    connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield peer
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@dataclass
class Names:
    """A name server on UDP. While `known` is false it fails; then every name is 127.0.0.1."""

    socket: socket.socket
    known: bool = False

    @property
    def authority(self) -> str:
        return f"127.0.0.1:{self.socket.getsockname()[1]}"

    def serve(self) -> None:
        with suppress(OSError):
            while True:
                query, sender = self.socket.recvfrom(512)
                if not query:
                    return
                self.socket.sendto(self._answer(query), sender)

    def _answer(self, query: bytes) -> bytes:
        name_ends = query.index(b"\0", 12)
        question = query[12 : name_ends + 5]
        [kind] = struct.unpack(">H", query[name_ends + 1 : name_ends + 3])
        found = self.known and kind == _A
        flags = _FOUND if self.known else _SERVFAIL
        counts = struct.pack(">HHHH", 1, int(found), 0, 0)
        record = b"\xc0\x0c" + struct.pack(">HHIH", _A, 1, 5, 4) + socket.inet_aton("127.0.0.1")
        return query[:2] + flags + counts + question + (record if found else b"")


@contextmanager
def name_server() -> Iterator[Names]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        names = Names(listener)
        thread = threading.Thread(target=names.serve)
        thread.start()
        try:
            yield names
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ender:
                ender.sendto(b"", listener.getsockname())
            thread.join()


if __name__ == "__main__":
    with resetting() as address:
        sys.stdout.write(f"{address}\n")
        sys.stdout.flush()
        threading.Event().wait()
