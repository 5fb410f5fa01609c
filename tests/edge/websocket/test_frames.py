"""One websocket without a network: silence, floods of frames, and a client that leaves."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri

from wavserve.core.errors import Cancelled, InvalidRequest, Overloaded
from wavserve.edge.websocket.connection import MAX_SMALL_FRAMES, Head, WebSocket

MAX_BYTES = 100_000
HEADERS = (
    (b"host", b"robot"),
    (b"upgrade", b"websocket"),
    (b"connection", b"Upgrade"),
    (b"sec-websocket-version", b"13"),
    (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
)


class Sent(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.data = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.data += bytes(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


def frame(opcode: Opcode, data: bytes = b"", fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=True)


def taking(num_bytes: int) -> None:
    pass


async def opened() -> tuple[WebSocket, Sent]:
    transport = Sent()
    socket = WebSocket(transport, "robot", MAX_BYTES)
    assert socket.accept(Head(b"/", HEADERS))
    assert transport.data.startswith(b"HTTP/1.1 101")
    transport.data = b""
    return socket, transport


@pytest.mark.parametrize("missing", [b"sec-websocket-key", b"sec-websocket-version"])
async def test_a_request_that_is_no_websockets_gets_an_error_of_http(missing: bytes) -> None:
    transport = Sent()
    socket = WebSocket(transport, "robot", MAX_BYTES)
    assert not socket.accept(Head(b"/", tuple(header for header in HEADERS if header[0] != missing)))
    assert transport.data.startswith(b"HTTP/1.1 4")
    assert transport.closed


async def test_a_head_beyond_the_packages_limits_gets_400() -> None:
    transport = Sent()
    socket = WebSocket(transport, "robot", MAX_BYTES)
    assert not socket.accept(Head(b"/", (*HEADERS, (b"x", b"x" * 9_000))))
    assert transport.data.startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.PONG])
async def test_a_flood_of_pings_ends_the_websocket(opcode: Opcode) -> None:
    socket, transport = await opened()
    socket.receive(frame(opcode) * (MAX_SMALL_FRAMES + 10_000))
    assert transport.closed
    assert len(transport.data) < 10 * 2 * MAX_SMALL_FRAMES  # and not all of them are answered
    with pytest.raises(InvalidRequest, match="at most 1000 frames"):
        await socket.message(taking)


async def test_a_flood_of_empty_fragments_ends_the_websocket() -> None:
    socket, transport = await opened()
    socket.receive(frame(Opcode.BINARY, b"x", fin=False) + frame(Opcode.CONT, fin=False) * (MAX_SMALL_FRAMES + 10_000))
    assert transport.closed
    assert await socket.begun()
    with pytest.raises(InvalidRequest, match="at most 1000 frames"):
        await socket.message(taking)


async def test_bytes_are_counted_as_they_arrive() -> None:
    socket, _ = await opened()
    counted: list[int] = []
    message = frame(Opcode.BINARY, bytes(90_000))
    socket.receive(message[:50_000])
    assert await socket.begun()
    waiting = asyncio.create_task(socket.message(counted.append))
    await asyncio.sleep(0)
    assert 49_900 < sum(counted) <= 50_000
    socket.receive(message[50_000:])
    assert await waiting == bytes(90_000)
    assert 90_000 <= sum(counted) <= 90_014


async def test_a_message_that_finds_no_room_is_refused_before_it_is_whole() -> None:
    socket, _ = await opened()
    socket.receive(frame(Opcode.BINARY, bytes(90_000))[:50_000])

    def full(num_bytes: int) -> None:
        raise Overloaded("full")

    with pytest.raises(Overloaded):
        await socket.message(full)


async def test_a_ping_begins_no_message() -> None:
    socket, _ = await opened()
    waiting = asyncio.create_task(socket.begun())
    socket.receive(frame(Opcode.PING, b"x" * 125)[:-1])
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not waiting.done()
    socket.receive(frame(Opcode.PING, b"x" * 125)[-1:] + frame(Opcode.BINARY, b"m"))
    assert await waiting
    assert await socket.message(taking) == b"m"


async def test_a_client_that_leaves_in_the_middle_of_a_message_cancels_it() -> None:
    socket, _ = await opened()
    socket.receive(frame(Opcode.BINARY, bytes(9_000))[:5_000])
    assert await socket.begun()
    waiting = asyncio.create_task(socket.message(taking))
    await asyncio.sleep(0)
    socket.lost()
    with pytest.raises(Cancelled):
        await waiting


async def test_two_messages_at_once_are_refused() -> None:
    socket, _ = await opened()
    socket.receive(frame(Opcode.BINARY, b"one") + frame(Opcode.BINARY, b"two"))
    with pytest.raises(InvalidRequest, match="one observation at a time"):
        await socket.message(taking)


async def test_a_silent_client_is_pinged_and_then_given_up() -> None:
    socket, transport = await opened()
    socket.on_silence()
    assert transport.data == bytes([0x80 | Opcode.PING, 0])
    assert not transport.closed
    socket.on_silence()
    assert transport.closed


async def test_a_client_that_answers_pings_stays() -> None:
    socket, transport = await opened()
    for _ in range(5):
        socket.on_silence()
        socket.receive(frame(Opcode.PONG))
    assert not transport.closed
    socket.lost()


def test_the_request_of_the_package_itself_is_accepted() -> None:
    """The headers above are those that the package's own client sends."""
    sent = ClientProtocol(parse_uri("ws://robot/")).connect()
    assert {name.lower().encode() for name, _ in sent.headers.raw_items()} >= {name for name, _ in HEADERS}
