"""A relay in front of a server, for what a network may do to connections: reset them, or lose an answer."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_RESET = struct.pack("ii", 1, 0)


class Relay:
    """Passes bytes on between clients and one port of this machine."""

    def __init__(self, port: int) -> None:
        self.num_accepted = 0
        self.answers_to_lose = 0
        """so many times an answer of the server is lost with its connection"""
        self._port = port
        self._clients: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def num_connections(self) -> int:
        return len(self._clients)

    async def reset_connections(self) -> None:
        """The clients' connections end with RST, as a firewall ends idle ones."""
        for client in list(self._clients):
            _reset(client)
        while self._clients:  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0.01)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_accepted += 1
        self._clients.add(writer)
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass(reader, to_server, writer, is_answer=False))
                both.create_task(self._pass(from_server, writer, to_server, is_answer=True))
        finally:
            self._clients.discard(writer)
            writer.close()
            to_server.close()

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        other: asyncio.StreamWriter,
        *,
        is_answer: bool,
    ) -> None:
        with contextlib.suppress(OSError):
            while read := await reader.read(65536):
                if is_answer and self.answers_to_lose:
                    self.answers_to_lose -= 1
                    _reset(writer)
                    break
                writer.write(read)
                await writer.drain()
        writer.close()
        other.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


@asynccontextmanager
async def relayed(port: int) -> AsyncIterator[tuple[Relay, int]]:
    """A relay before `port`, and the port at which it listens."""
    relay = Relay(port)
    server = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
    async with server:
        yield relay, server.sockets[0].getsockname()[1]
        await relay.reset_connections()
