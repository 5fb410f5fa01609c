"""The channel to a Triton server: errors of any length arrive, and a server that was away is found soon.

The server is a real gRPC server with Triton's methods that are called here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from tests.clients.servers import closing, name_server
from wavserve.backends.triton.client import TritonBackend
from wavserve.core import remote_errors
from wavserve.core.channels import MAX_BACKOFF_S
from wavserve.core.errors import BackendError, InvalidRequest, ModelDown, WavserveError

OUTAGE_S = 10.0
LOAD = "RepositoryModelLoad"
Answer = Callable[[Any, Any], Awaitable[Any]]


@asynccontextmanager
async def serving(method: str, answer: Answer, port: int = 0) -> AsyncIterator[str]:
    """Serves one method of Triton's, over raw bytes, at an address."""
    server = grpc.aio.server()
    handlers = {method: grpc.unary_unary_rpc_method_handler(answer)}
    service = grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers)
    server.add_generic_rpc_handlers((service,))
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield f"127.0.0.1:{bound}"
    finally:
        await server.stop(None)


@pytest.mark.parametrize("letter", ["x", "日", "%"])
async def test_a_long_error_of_a_model_arrives_with_tritons_traceback(letter: str) -> None:
    long = letter * 100_000
    line = remote_errors.encode(InvalidRequest(long, long, long))

    async def refuse(_request: Any, context: Any) -> None:
        traceback = "At: model.py(1): 日本\n" * 400
        await context.abort(grpc.StatusCode.INTERNAL, f"TritonModelException: {line}\n{traceback}")

    async with serving(LOAD, refuse) as url:
        backend = TritonBackend(url)
        with pytest.raises(WavserveError) as caught:
            await backend.load("encoder", 30.0)
        await backend.close()
    assert isinstance(caught.value, InvalidRequest)
    assert caught.value.field.startswith(letter * 50)


async def test_a_name_that_resolves_again_is_found_soon() -> None:
    """Kubernetes removes the name of a pod that restarts."""

    async def answer(_request: Any, context: Any) -> None:
        await context.abort(grpc.StatusCode.INTERNAL, "reached")

    with name_server() as names:
        async with serving("ModelInfer", answer) as url:
            backend = TritonBackend(f"dns://{names.authority}/triton.test:{url.rpartition(':')[2]}")
            known_at = time.monotonic() + OUTAGE_S
            while not names.known:
                with pytest.raises(ModelDown, match="resolving"):
                    await backend.describe("encoder", 30.0)
                await asyncio.sleep(0.2)
                names.known = time.monotonic() > known_at
            while True:
                with pytest.raises(BackendError) as caught:
                    await backend.describe("encoder", 30.0)
                if "reached" in caught.value.message:
                    break
                assert time.monotonic() - known_at < MAX_BACKOFF_S + 1.5
                await asyncio.sleep(0.1)
            await backend.close()


async def test_a_server_that_was_away_is_found_soon() -> None:
    async def load(_request: Any, _context: Any) -> Any:
        return b""

    with closing() as peer:
        backend = TritonBackend(peer.address)
        with pytest.raises(ModelDown):
            await backend.load("encoder", 30.0)
        await asyncio.sleep(OUTAGE_S)
    async with serving(LOAD, load, int(peer.address.rpartition(":")[2])):
        began = time.monotonic()
        while True:
            try:
                await backend.load("encoder", 30.0)
                break
            except ModelDown:
                assert time.monotonic() - began < MAX_BACKOFF_S + 1.5
                await asyncio.sleep(0.1)
        await backend.close()
