"""One websocket on an HTTP connection: frames become messages, within limits of size, number and time.

It wraps the sans-I/O protocol of the package `websockets`. Pings are answered as they arrive, also while a message
waits for its answer. A client sends its next message after the answer. Knows neither msgpack nor routes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from http import HTTPStatus
from time import monotonic
from typing import Any, TypeVar

from websockets.exceptions import PayloadTooBig
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from wavserve.core.errors import Cancelled, InvalidRequest, TooLarge, UnsupportedMedia

T = TypeVar("T")

MAX_SMALL_FRAMES = 1_000
"""Frames, pings included, that a client may send in WINDOW_S in any case. Each costs a step of a loop."""
FRAME_BYTES = 1024
"""For each further frame the client must have sent this many bytes."""
WINDOW_S = 10.0
_SLICE = 8 * 1024
"""Bytes that are parsed before the frames are counted."""
_MAX_CONTROL_BYTES = 131
"""A longer rest of a frame belongs to a message, and not to a ping or a pong."""
PING_S = 20.0
"""A client that is silent for so long is pinged, and is given up when it is silent for as long again."""
_MESSAGE = "message"
_GONE = "the client disconnected"
_SILENT = logging.Logger("websocket", logging.CRITICAL + 1)  # the package's own lines, for each connection and frame


@dataclass(frozen=True, slots=True)
class Head:
    """The request that asks for a websocket. `rest`: bytes that came behind it."""

    target: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    rest: bytes = b""

    def values(self, name: str) -> list[str]:
        """Of every header with this name, in lower case."""
        return [value.decode("latin-1") for key, value in self.headers if key == name.encode()]


class WebSocket:
    """The server's side of one websocket. The HTTP connection calls `receive`, `drain` and `lost`."""

    def __init__(self, transport: asyncio.Transport, sender: str, max_message_bytes: int) -> None:
        """`sender`: who pays for parsing and decoding, as `Arrival.sender`."""
        self.sender = sender
        self._transport = transport
        self._max_message_bytes = max_message_bytes
        # no page of a browser: any site could have it opened
        self._protocol = ServerProtocol(origins=[None], max_size=max_message_bytes, logger=_SILENT)
        self._fragments: list[bytes] = []
        self._num_fragment_bytes = 0
        self._is_text = False
        self._is_whole = False
        self._answering = False
        self._ending = False
        self._closed = False
        self._fault: Exception | None = None
        self._changed = asyncio.Event()
        self._window_end, self._num_frames, self._num_bytes = 0.0, 0, 0
        self._heard = True
        self._ping = asyncio.get_running_loop().call_later(PING_S, self.on_silence)

    def accept(self, head: Head) -> bool:
        """Answers the request. False: it is no websocket's; it gets an error of HTTP, and the connection ends."""
        lines = [b"GET %b HTTP/1.1" % head.target, *(b"%b: %b" % header for header in head.headers), b"", b""]
        self._protocol.receive_data(b"\r\n".join(lines))
        requests = [event for event in self._protocol.events_received() if isinstance(event, Request)]
        if requests:
            self._protocol.send_response(self._protocol.accept(requests[0]))
            self._flush()
        else:  # beyond the package's own limits of a head
            refusal = self._protocol.reject(HTTPStatus.BAD_REQUEST, "The headers are too long.\n")
            self._transport.write(refusal.serialize())
        if self._protocol.state is not State.OPEN:
            self._end()
            return False
        self.receive(head.rest)
        return True

    def receive(self, data: bytes) -> None:
        """Takes bytes of the client."""
        self._heard = True
        for start in range(0, len(data), _SLICE):
            if self._closed:
                break
            piece = data[start : start + _SLICE]
            self._protocol.receive_data(piece)
            self._num_bytes += len(piece)
            self._take_frames()
            self._flush()
        self._changed.set()

    def drain(self) -> None:
        """Ends the websocket once the message under way is answered."""
        self._ending = True
        self._changed.set()

    def lost(self) -> None:
        """The connection is gone."""
        self._end()

    def on_silence(self) -> None:
        """Every PING_S: pings the client, or gives it up when nothing came since the last ping."""
        if not self._heard:
            self.close(CloseCode.INTERNAL_ERROR, "no answer to a ping")
            return
        self._heard = False
        self._protocol.send_ping(b"")
        self._flush()
        self._ping = asyncio.get_running_loop().call_later(PING_S, self.on_silence)

    async def begun(self) -> bool:
        """Waits for the next message to begin. False: there will be none."""
        while not (self._num_held or self._fault or self._closed or self._ending):
            await self._change()
        return bool(self._num_held or self._fault) and not (self._closed and self._fault is None)

    async def message(self, take_bytes: Callable[[int], None]) -> bytes:
        """The message that has begun. `take_bytes`: counts its bytes as they arrive, and may raise.

        Raises TooLarge, UnsupportedMedia, InvalidRequest, and Cancelled when the client is gone.
        """
        taken = 0
        while True:
            if self._fault is not None:
                raise self._fault
            take_bytes(max(self._num_held - taken, 0))
            taken = max(self._num_held, taken)
            if self._is_whole:
                return self._whole()
            if self._closed:
                raise Cancelled(_GONE)
            await self._change()

    async def while_waiting(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`. Cancels it when the client disconnects or sends another message first; raises which."""
        task, disturbed = asyncio.create_task(work), asyncio.create_task(self._disturbed())
        try:
            await asyncio.wait((task, disturbed), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise disturbed.result()
            return task.result()
        finally:
            for pending in (task, disturbed):
                pending.cancel()
            await asyncio.gather(task, disturbed, return_exceptions=True)

    def send(self, message: bytes) -> None:
        """Answers with a binary message. Nothing is sent to a client that is gone."""
        self._answering = False
        if not self._closed:
            self._protocol.send_binary(message)
            self._flush()

    def fail(self, text: str) -> None:
        """Sends a text, and ends the websocket with code 1011."""
        if not self._closed:
            self._protocol.send_text(text.encode())
            self.close(CloseCode.INTERNAL_ERROR, "see the text before")

    def close(self, code: int, reason: str = "") -> None:
        """Ends the websocket. The client reads what it was sent: the connection lingers."""
        if not self._closed:
            self._protocol.fail(code, reason)
            self._flush()
            self._end()

    @property
    def _num_held(self) -> int:
        """Bytes of the message under way."""
        rest = len(self._protocol.reader.buffer)
        return self._num_fragment_bytes + (rest if rest > _MAX_CONTROL_BYTES else 0) or int(self._is_whole)

    def _whole(self) -> bytes:
        message = self._fragments[0] if len(self._fragments) == 1 else b"".join(self._fragments)
        self._fragments, self._num_fragment_bytes, self._is_whole = [], 0, False
        self._answering = True
        if self._is_text:
            raise UnsupportedMedia(_MESSAGE, "a binary frame of msgpack", "a text frame")
        return message

    async def _disturbed(self) -> Exception:
        while not (self._closed or self._fault or self._num_held):
            await self._change()
        if self._num_held and not self._closed:
            return self._fault or _too_early()
        return self._fault or Cancelled(_GONE)

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _take_frames(self) -> None:
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._take(event)
        if self._protocol.parser_exc is not None and self._fault is None:
            self._refuse(_reason(self._protocol.parser_exc, self._max_message_bytes))
        elif self._is_flood():
            self._refuse(InvalidRequest(_MESSAGE, f"at most {MAX_SMALL_FRAMES} frames in {WINDOW_S:g} s", "more"))
        elif self._protocol.state is State.CLOSED or self._protocol.close_rcvd is not None:
            self._flush()
            self._end()

    def _take(self, frame: Frame) -> None:
        self._num_frames += 1
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return
        if self._is_whole or self._answering:
            self._fault = self._fault or _too_early()
            return
        if frame.opcode is not Opcode.CONT:
            self._is_text = frame.opcode is Opcode.TEXT
        self._fragments.append(bytes(frame.data))
        self._num_fragment_bytes += len(frame.data)
        self._is_whole = frame.fin

    def _is_flood(self) -> bool:
        now = monotonic()
        if now > self._window_end:
            self._window_end, self._num_frames, self._num_bytes = now + WINDOW_S, 0, 0
        return self._num_frames > MAX_SMALL_FRAMES + self._num_bytes // FRAME_BYTES

    def _refuse(self, fault: Exception) -> None:
        """Ends a websocket whose frames are refused. Whoever waits for a message gets the reason."""
        self._fault = fault
        self.close(CloseCode.POLICY_VIOLATION, "too many frames")

    def _flush(self) -> None:
        data = b"".join(self._protocol.data_to_send())  # an end of the stream is empty there
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def _end(self) -> None:
        if not self._closed:
            self._closed = True
            self._ping.cancel()
            self._changed.set()
            self._transport.close()


def _too_early() -> InvalidRequest:
    return InvalidRequest(_MESSAGE, "one observation at a time", "another one before the answer")


def _reason(error: Exception, max_bytes: int) -> Exception:
    if isinstance(error, PayloadTooBig):
        return TooLarge(_MESSAGE, f"at most {max_bytes} bytes", "more")
    return InvalidRequest(_MESSAGE, "frames as RFC 6455 defines them", f"{error}"[:100])
