"""The gRPC edge: `wavserve.v1.PlanService`, standard health and reflection. The frontend does the work.

Create the server inside a running event loop. Requests arrive as raw bytes and are parsed here, because gRPC's own
deserialiser would answer INTERNAL to a malformed message and name no field.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from wavserve.core.errors import Cancelled, TooLarge
from wavserve.core.messages import DEADLINE_KEY
from wavserve.core.tracing import TRACE_KEY, TraceContext
from wavserve.edge.frontend import Frontend, PolicyProtocol
from wavserve.edge.grpc.calls import Context, abort, sender_of
from wavserve.edge.grpc.control.robots import Robots
from wavserve.edge.grpc.control.service import ControlService
from wavserve.edge.limits import MAX_CONNECTIONS, EdgeLimits
from wavserve.edge.report import report, safe_text
from wavserve.edge.trail import Caller, Trail
from wavserve.pb import wavserve_pb2 as pb
from wavserve.system.telemetry import Metrics
from wavserve.wire import answers, requests
from wavserve.wire.errors import status_text

Behaviour = Callable[[bytes, Context], Awaitable[bytes]]

SERVICE = pb.DESCRIPTOR.services_by_name["PlanService"].full_name
_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_WATCH_INTERVAL_S = 1.0
_HANDSHAKE_MS = 10_000


def create_grpc_server(
    policy: PolicyProtocol,
    limits: EdgeLimits,
    metrics: Metrics,
    max_connections: int = MAX_CONNECTIONS,
    robots: Robots | None = None,
    trail: Trail | None = None,
) -> grpc.aio.Server:
    """The server over a policy, without a port and not started. `max_connections`: on each of its addresses.

    `robots`: those with a living stream; None: nobody else needs to know them.
    """
    server = grpc.aio.server(options=_options(limits, max_connections))
    frontend = Frontend(policy, limits, metrics.plans.refused, trail=trail or Trail())
    control = ControlService(frontend, Robots() if robots is None else robots, metrics.control)
    service = _PlanService(frontend, metrics, control)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, service.handlers()),))
    health_pb2_grpc.add_HealthServicer_to_server(_Health(policy, (SERVICE, "")), server)
    reflection.enable_server_reflection((SERVICE, _HEALTH, reflection.SERVICE_NAME), server)
    return server


def _options(limits: EdgeLimits, max_connections: int) -> list[tuple[str, int]]:
    return [
        # Twice our limit, so that our own check can refuse most requests that are too long and name both sizes. gRPC
        # itself refuses longer ones.
        ("grpc.max_receive_message_length", 2 * limits.max_body_bytes),
        ("grpc.max_send_message_length", -1),
        # Robots ping to notice a dead link, and gRPC itself pings to measure bandwidth. By default frequent pings close
        # the connection, for example of a robot that paused for a minute. With 0 no number of pings closes it.
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 4_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        # Connections share the process's file descriptors with everything else. gRPC closes one too many at once.
        ("grpc.max_allowed_incoming_connections", max_connections),
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),  # by default two minutes
        ("grpc.so_reuseport", 0),  # a port in use is an error; two servers must not share it
    ]


class _PlanService:
    """The service's methods, from raw request bytes to raw answer bytes."""

    def __init__(self, frontend: Frontend, metrics: Metrics, control: ControlService) -> None:
        self._frontend = frontend
        self._metrics = metrics
        self._control = control

    def handlers(self) -> dict[str, grpc.RpcMethodHandler[bytes, bytes]]:
        """Method name -> handler. Without (de)serialisers gRPC passes the raw bytes."""
        unary = {"Plan": self._plan, "Reset": self._reset, "GetPolicy": self._get_policy}
        handlers: dict[str, Any] = {
            name: grpc.unary_unary_rpc_method_handler(self._guarded(method)) for name, method in unary.items()
        }
        handlers["Control"] = grpc.stream_stream_rpc_method_handler(self._control.control)
        handlers["Watch"] = grpc.unary_stream_rpc_method_handler(self._control.watch)
        return handlers

    async def _plan(self, raw: bytes, context: Context) -> bytes:
        received_ns, remaining_s = time.monotonic_ns(), context.time_remaining()
        transport_deadline = None if remaining_s is None else received_ns / 1e9 + remaining_s
        deadlines_ms, parent = _values(context, DEADLINE_KEY), TraceContext.parse(_values(context, TRACE_KEY))
        caller = Caller(sender_of(context), "grpc", parent=parent)
        with self._frontend.admit(deadlines_ms, received_ns, caller, len(raw), transport_deadline) as arrival:
            arrival.permit.take_bytes(len(raw))
            observation = await self._frontend.parse(requests.parse_plan_request, raw, arrival)
            chunk = await self._frontend.plan(observation, arrival)
        return answers.action_chunk(chunk).SerializeToString()

    async def _reset(self, raw: bytes, _context: Context) -> bytes:
        session_id, ends = requests.parse_reset_request(raw)
        await (self._frontend.end_session(session_id) if ends else self._frontend.reset(session_id))
        return pb.ResetResponse(session_id=session_id).SerializeToString()

    async def _get_policy(self, raw: bytes, _context: Context) -> bytes:
        return answers.policy_message(self._frontend.info(requests.parse_get_policy_request(raw))).SerializeToString()

    def _guarded(self, method: Behaviour) -> Behaviour:
        """Wraps a method: checks the size, counts and times the call, answers a failure with a status and details."""

        async def behaviour(raw: bytes, context: Context) -> bytes:
            began, outcome = time.monotonic(), "ok"
            try:
                self._check_size(raw)
                return await method(raw, context)
            except asyncio.CancelledError:
                outcome = report(
                    Cancelled("the call was cancelled, by its client or because the server stops"), "grpc"
                ).name
                raise
            except Exception as error:  # noqa: BLE001  # every failure gets a status; `report` logs the unexpected
                problem = report(error, "grpc")
                outcome = problem.name
                await abort(context, problem)
            finally:
                self._metrics.observe_request("grpc", outcome, time.monotonic() - began)

        return behaviour

    def _check_size(self, raw: bytes) -> None:
        limit = self._frontend.limits.max_body_bytes
        if len(raw) > limit:
            raise TooLarge("body", f"at most {limit} bytes", f"{len(raw)} bytes")


def _values(context: Context, key: str) -> list[str]:
    """The values that a call's metadata has under a key."""
    return [str(value) for name, value in context.invocation_metadata() or () if name == key]


class _Health(health_pb2_grpc.HealthServicer):
    """grpc.health.v1. Every answer is read from the policy, so that no code has to update it."""

    def __init__(self, policy: PolicyProtocol, services: tuple[str, ...]) -> None:
        self._policy = policy
        self._services = services

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Any) -> health_pb2.HealthCheckResponse:
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, status_text(f"unknown service {safe_text(request.service)}"))
        return self._status(request.service)

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, _context: Any
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        last_sent = None
        while True:
            status = self._status(request.service)
            if status != last_sent:
                yield status
            last_sent = status
            await asyncio.sleep(_WATCH_INTERVAL_S)

    def _status(self, service: str) -> health_pb2.HealthCheckResponse:
        if service not in self._services:
            return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
        ready = health_pb2.HealthCheckResponse.SERVING
        return health_pb2.HealthCheckResponse(
            status=ready if self._policy.ready else health_pb2.HealthCheckResponse.NOT_SERVING
        )
