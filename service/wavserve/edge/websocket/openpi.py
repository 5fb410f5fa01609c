"""openpi's protocol: the policy's facts first, then an observation and its chunk in turn.

A failure is a short text, and then the connection ends with code 1011, because the protocol has no other way. Each
connection is a session of its own. Knows no frames: `connection` has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from time import monotonic_ns
from typing import Any

import numpy as np
from websockets.frames import CloseCode

from wavserve.core.messages import DEADLINE_KEY, ActionChunk
from wavserve.core.tracing import TRACE_KEY, TraceContext
from wavserve.edge.compat.session import ForeignObservation, ForeignSession
from wavserve.edge.compat.tables import CompatConfig
from wavserve.edge.frontend import Arrival, Frontend
from wavserve.edge.report import report
from wavserve.edge.trail import Caller
from wavserve.edge.websocket import dialects
from wavserve.edge.websocket.connection import Head, WebSocket
from wavserve.edge.websocket.packing import pack, unpack
from wavserve.system.telemetry import Metrics

PATHS = ("/", "/v1/realtime/robot/openpi")
_EDGE = "websocket"


@dataclass(frozen=True, slots=True)
class OpenpiEndpoint:
    """Serves the websockets of openpi's clients."""

    frontend: Frontend
    config: CompatConfig
    metrics: Metrics

    @property
    def paths(self) -> tuple[str, ...]:
        return PATHS

    @property
    def max_message_bytes(self) -> int:
        return self.frontend.limits.max_body_bytes

    async def serve(self, socket: WebSocket, head: Head) -> None:
        """Serves one websocket until it ends. An `x-deadline-ms` of its request counts for each observation."""
        session = ForeignSession(self.frontend, self.config)
        caller = Caller(socket.sender, _EDGE, parent=TraceContext.parse(head.values(TRACE_KEY)))
        answer = partial(self._answer, socket, session, caller, head.values(DEADLINE_KEY))
        try:
            socket.send(pack(self._metadata()))
            while await socket.begun() and await answer():
                pass
        finally:
            socket.close(CloseCode.SERVICE_RESTART, "the service stops")
            await session.end()

    async def _answer(
        self, socket: WebSocket, session: ForeignSession, caller: Caller, deadlines_ms: list[str]
    ) -> bool:
        """Answers one observation. False: it failed, and so the websocket ends."""
        received_ns, outcome = monotonic_ns(), "cancelled"
        try:
            with self.frontend.admit(deadlines_ms, received_ns, caller, 0) as arrival:
                reply = await self._plan(socket, session, arrival)
            socket.send(pack(reply))
            outcome = "ok"
            return True
        except Exception as error:  # noqa: BLE001  # every failure gets an answer; the log has the traceback
            problem = report(error, _EDGE)
            outcome = problem.name
            socket.fail(f"{problem.name}: {problem.detail} ({problem.error_id})")
            return False
        finally:
            self.metrics.observe_request(_EDGE, outcome, (monotonic_ns() - received_ns) / 1e9)

    async def _plan(self, socket: WebSocket, session: ForeignSession, arrival: Arrival) -> dict[str, Any]:
        body = await self.frontend.receive(socket.message(arrival.permit.take_bytes), arrival)
        session.check_trained()
        return await socket.while_waiting(self._reply(body, session, arrival))

    async def _reply(self, body: bytes, session: ForeignSession, arrival: Arrival) -> dict[str, Any]:
        sent = await self.frontend.parse(partial(_read, self.config), body, arrival)
        return _reply(await session.plan(sent, arrival), sent.num_actions)

    def _metadata(self) -> dict[str, Any]:
        """What a client may know before its first observation. Only plain values: a client's own code reads them."""
        info, config = self.frontend.info(), self.config
        return {
            "policy": info.name,
            "policy_digest": info.digest,
            "untrained": info.untrained,
            "action_horizon": info.horizon,
            "action_names": list(info.action.names),
            "action_units": list(info.action.units),
            "state_names": list(info.state.names),
            "state_units": list(info.state.units),
            "control_hz": info.control_hz,
            "executed_steps": config.executed_steps,
            "instruction": config.instruction,
            "cameras": {dialect: dict(table) for dialect, table in config.tables.items()},
        }


def _read(config: CompatConfig, body: bytes) -> ForeignObservation:
    return dialects.read(unpack(body, "observation"), config)


def _reply(chunk: ActionChunk, num_actions: int | None) -> dict[str, Any]:
    """`actions` is the only array: clients cut every array by control step."""
    stage_s = chunk.receipt.stage_s
    return {
        "actions": np.ascontiguousarray(chunk.actions[:num_actions], np.float32),
        "server_timing": {"infer_ms": (chunk.server_send_ns - chunk.server_recv_ns) / 1e6},
        "policy_timing": {f"{stage}_ms": 1e3 * seconds for stage, seconds in stage_s.items()},
        "chunk_id": chunk.chunk_id,
        "value_estimate": chunk.receipt.value_estimate,
        "untrained": chunk.receipt.untrained,
        "warnings": list(chunk.warnings),
    }
