"""A thousand damaged messages and frames for a whole service: no crash, no traceback for the client, flat memory."""

from __future__ import annotations

import random
import socket
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit

import msgpack
import psutil
import pytest
from websockets.exceptions import ConnectionClosed

from tests.edge.websocket.clients import SENT, connected, libero
from wavserve.edge.websocket.packing import pack
from wavserve.models.weights import presets
from wavserve.system import serve_process
from wavserve.system.serve_process import Child

NUM_FRAMES = 1_000
WARM_UP = 200
MAX_GROWTH_BYTES = 30_000_000
GOOD = tuple(pack(observation()) for observation in SENT.values())
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: robot\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def value(draw: random.Random, depth: int = 0) -> object:
    """Any value that msgpack has."""
    leaves = (None, True, draw.randrange(-(2**40), 2**40), draw.random(), "x" * draw.randrange(40), draw.randbytes(9))
    if depth == 4 or draw.random() < 0.5:
        return draw.choice(leaves)
    if draw.random() < 0.5:
        return [value(draw, depth + 1) for _ in range(draw.randrange(5))]
    keys = ("state", "images", "obs", "prompt", "observation/state", b"__ndarray__", b"data", b"dtype", b"shape")
    return {draw.choice(keys): value(draw, depth + 1) for _ in range(draw.randrange(5))}


def messages(draw: random.Random) -> Iterator[bytes | str]:
    while True:
        good = bytearray(draw.choice(GOOD))
        yield bytes(good[: draw.randrange(len(good))])
        for _ in range(draw.randrange(1, 9)):
            good[draw.choice((draw.randrange(200), draw.randrange(len(good))))] = draw.randrange(256)
        yield bytes(good)
        yield draw.randbytes(draw.randrange(2_000))
        yield msgpack.packb(value(draw))
        yield "x" * draw.randrange(2_000)


def raw(http: str, frames: bytes) -> bytes:
    """Sends bytes in place of frames, and returns what came back until the service closed."""
    address = urlsplit(http)
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        connection.sendall(UPGRADE + frames)
        connection.shutdown(socket.SHUT_WR)
        came = b""
        while piece := connection.recv(65_536):
            came += piece
    return came


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    """A whole service on the fake backend."""
    folder = tmp_path_factory.mktemp("fuzz")
    bundle = presets.create("tiny", folder / "tiny", with_golden=False)  # the fake backend does not make that plan
    settings = (
        f"bundle.path={bundle.folder}",
        "backend.kind=local",
        "backend.compile=off",
        "compat.allow_untrained=true",
    )
    flags = [part for each in settings for part in ("--set", each)]
    with serve_process.running(
        folder / "server.log", flags, (sys.executable, "-m", "loadtest.bench.fake_service")
    ) as child:
        yield child


@pytest.mark.slow
def test_a_thousand_damaged_frames(service: Child) -> None:
    draw, memory = random.Random(3), psutil.Process(service.process.pid).memory_info
    damaged, before = messages(draw), 0
    for number in range(NUM_FRAMES):
        if number % 5 == 4:
            reply: bytes | str = raw(service.http, draw.randbytes(draw.randrange(300)))
        else:
            with connected(service.http) as client:
                reply = exchanged(client.connection, next(damaged))
        assert "Traceback" not in str(reply)
        if number == WARM_UP:
            before = memory().rss
    assert memory().rss - before < MAX_GROWTH_BYTES
    with connected(service.http) as client:
        assert "actions" in client.infer(libero())
    assert "internal error" not in service.log.read_text(encoding="utf-8")


def exchanged(connection: object, message: bytes | str) -> bytes | str:
    try:
        connection.send(message)  # type: ignore[attr-defined]
        reply: bytes | str = connection.recv(timeout=30)  # type: ignore[attr-defined]
    except ConnectionClosed as closed:
        return str(closed)
    return reply
