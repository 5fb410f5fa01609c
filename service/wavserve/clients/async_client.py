"""The robot client for an event loop: what `plan_client` does, awaited.

Used by programs that drive several robots, such as the load test. Needs only the base install.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

import grpc
import grpc.aio

from wavserve.clients.plan_client import channel_options, typed_error
from wavserve.core.messages import DEADLINE_KEY, Chunk, Submission
from wavserve.pb import wavserve_pb2 as pb
from wavserve.wire import answers, requests

_PLAN = "/wavserve.v1.PlanService/Plan"


class AsyncPlanClient:
    """One connection to a server (`host:port`, no TLS), made inside a running loop; an async context manager."""

    def __init__(self, target: str, max_message_bytes: int = 32 * 1024 * 1024) -> None:
        self._target = target
        # Channels to one target share a connection by default; robots are apart from each other.
        options = [*channel_options(max_message_bytes), ("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.aio.insecure_channel(target, options=options)

    async def plan(self, submission: Submission, timeout_s: float | None = None) -> Chunk:
        """Plans. `timeout_s` bounds the call itself (None: only the request's deadline, if any, does).

        Raises whatever the server refused it with, DeadlineExceeded past the timeout, NotReady when nobody answers.
        """
        call = self._channel.unary_unary(
            _PLAN,
            request_serializer=pb.PlanRequest.SerializeToString,
            response_deserializer=pb.ActionChunk.FromString,
        )
        deadline = submission.deadline_ms
        metadata = () if deadline is None else ((DEADLINE_KEY, str(deadline)),)
        try:
            message = await call(requests.plan_request(submission), timeout=timeout_s, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            told_by_grpc = f"{self._target}: {error.code().name}: {error.details()}"
            raise typed_error(error.code(), told_by_grpc, tuple(error.trailing_metadata())) from None
        return answers.chunk_from(message)

    async def close(self) -> None:
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()
