"""The event loop of the tests: what gRPC leaves of a loop that was closed is no failure of the test that runs then."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc


async def test_a_call_of_a_loop_that_was_closed_ends_in_silence() -> None:
    asked, answer, left = asyncio.Event(), asyncio.Event(), list[Any]()

    async def behaviour(_request: bytes, _context: Any) -> bytes:
        asked.set()
        await answer.wait()
        return b"late"

    server = grpc.aio.server()
    method = {"Ask": grpc.unary_unary_rpc_method_handler(behaviour)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test", method),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    here = asyncio.get_running_loop()

    async def ask() -> None:
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        left.extend((channel, channel.unary_unary("/test/Ask")(b"")))
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asked.wait(), here))

    def close_with_a_call_under_way() -> None:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(ask())
        loop.close()

    await asyncio.to_thread(close_with_a_call_under_way)
    answer.set()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        assert await channel.unary_unary("/test/Ask")(b"", timeout=60) == b"late"
    await server.stop(None)
