"""A server over HTTP: one pool of connections, awaited. Knows no call by name."""

from __future__ import annotations

import asyncio
import socket
from types import MappingProxyType
from typing import TypeVar
from urllib.parse import urlsplit

import httpx

from wavserve.clients.http_calls import HttpCall, read_answer, typed_error
from wavserve.core.channels import MAX_BACKOFF_S, is_local
from wavserve.core.errors import ClientClosed, DeadlineExceeded, InvalidAnswer, NotReady, Unreachable

Answer = TypeVar("Answer")

MAX_CONNECTIONS = 100
PING_INTERVAL_S = 3.5
"""Also how long a ping waits for its answer."""
MAX_LOST_PINGS = 2
"""In a row: then nobody is there. With the interval, a dead server is found within 15 s, as over gRPC."""
_KEEPALIVE = MappingProxyType({"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 1})
"""A dead link is found within 15 s. Names that this system does not have are left out."""


class AsyncHttpPeer:
    """The connections to one server. Make it inside a running loop."""

    def __init__(self, target: str, max_bytes: int, proxy: bool) -> None:
        """Connects with the first call. `target`: a URL as `parse_targets` gives it."""
        self._target = target
        self._max_bytes = max_bytes
        through_proxy = proxy and not is_local(urlsplit(target).netloc)
        limits = httpx.Limits(max_connections=MAX_CONNECTIONS)
        transport = httpx.AsyncHTTPTransport(limits=limits, socket_options=_socket_options())
        self._client = httpx.AsyncClient(
            base_url=self._target,
            transport=None if through_proxy else transport,
            trust_env=through_proxy,
            timeout=httpx.Timeout(None, connect=MAX_BACKOFF_S),
        )
        self._closed = False
        self._calls: set[asyncio.Task[tuple[int, bytes]]] = set()

    async def call(self, call: HttpCall[Answer], timeout_s: float | None) -> Answer:
        """One call. Raises the server's error, NotReady, Unreachable, DeadlineExceeded, InvalidAnswer, ClientClosed."""
        if self._closed:
            raise self._refusal()
        timeout_s = call.timeout_s if timeout_s is None else timeout_s
        exchange = asyncio.create_task(self._exchange(call) if timeout_s is not None else self._while_alive(call))
        self._calls.add(exchange)
        try:
            async with asyncio.timeout(timeout_s):
                status, body = await exchange
        except TimeoutError:
            raise DeadlineExceeded(f"{self._target}: no answer in time") from None
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Unreachable(f"{self._target}: {type(error).__name__}: {error}") from None
        except httpx.TransportError as error:
            raise NotReady(f"{self._target}: {type(error).__name__}: {error}") from None
        except asyncio.CancelledError:
            if self._closed:
                raise self._refusal() from None
            raise
        finally:
            self._calls.discard(exchange)
            exchange.cancel()
        if not 200 <= status < 300:
            raise typed_error(self._target, status, body)
        return read_answer(call, body)

    async def close(self) -> None:
        """Ends the calls under way, and refuses later ones, with ClientClosed."""
        self._closed = True
        for exchange in self._calls:
            exchange.cancel()
        await self._client.aclose()

    async def _while_alive(self, call: HttpCall[Answer]) -> tuple[int, bytes]:
        """An exchange without a time limit. Raises NotReady when the server answers no ping."""
        exchange = asyncio.create_task(self._exchange(call))
        silence = asyncio.create_task(self._until_silent())
        try:
            await asyncio.wait((exchange, silence), return_when=asyncio.FIRST_COMPLETED)
            if not exchange.done():
                raise NotReady(f"{self._target}: no answer to {MAX_LOST_PINGS} pings")
            return exchange.result()
        finally:
            exchange.cancel()
            silence.cancel()

    async def _until_silent(self) -> None:
        """Until several pings in a row have no answer. A kernel acknowledges for a process that stands still."""
        num_lost = 0
        while num_lost < MAX_LOST_PINGS:
            await asyncio.sleep(PING_INTERVAL_S)
            try:
                async with asyncio.timeout(PING_INTERVAL_S):
                    await self._client.get("/healthz")
                num_lost = 0
            except (TimeoutError, httpx.TransportError):
                num_lost += 1

    async def _exchange(self, call: HttpCall[Answer]) -> tuple[int, bytes]:
        """Status and body."""
        pieces, num_bytes = [], 0
        request = {"files": call.files, "headers": call.headers}
        async with self._client.stream(call.method, call.path, **request) as response:  # type: ignore[arg-type]
            async for piece in response.aiter_bytes():
                num_bytes += len(piece)
                if num_bytes > self._max_bytes:
                    raise InvalidAnswer(f"answer: expected at most {self._max_bytes} bytes, got more")
                pieces.append(piece)
        return response.status_code, b"".join(pieces)

    def _refusal(self) -> ClientClosed:
        return ClientClosed(f"{self._target}: this client is closed; make another one")


def _socket_options() -> list[tuple[int, int, int]]:
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    return options
