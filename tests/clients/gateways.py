"""A gateway for tests of the robot clients: a real gRPC server whose answers a test decides. It plans nothing."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
import numpy as np

from tests.clients.chunks import chunk_of
from tests.clients.servers import SERVICE
from tests.edge.fakes import RecordingPolicy, example_limits
from wavserve.clients.robot import CameraDescription, RobotDescription, RobotObservation
from wavserve.core.control import (
    Bye,
    ControlObservation,
    Hello,
    Ping,
    Pong,
    ResetAck,
    ResetStream,
    ServerMessage,
    StreamError,
    Welcome,
)
from wavserve.core.messages import ActionChunk, PolicyInfo
from wavserve.edge.frontend import Frontend
from wavserve.wire.answers import policy_message
from wavserve.wire.control import parse_client_message
from wavserve.wire.control_answers import server_message

POLICY: PolicyInfo = Frontend(RecordingPolicy(), example_limits()).info()
ROBOT = RobotDescription(
    robot_id="arm-1",
    embodiment=POLICY.embodiment,
    state=POLICY.state,
    action=POLICY.action,
    control_hz=POLICY.control_hz,
    cameras=tuple(CameraDescription(each.name) for each in POLICY.cameras),
)
DT_S = 1 / POLICY.control_hz
PICTURE = np.zeros((128, 128, 3), np.uint8)


def observation_at(step: int, executed: int = 0, **changes: Any) -> RobotObservation:
    """An observation of `ROBOT`."""
    images = {each.name: PICTURE for each in ROBOT.cameras}
    state = (0.0,) * len(POLICY.state.names)
    seen = RobotObservation(images=images, state=state, control_step=step, executed_steps=executed)
    return replace(seen, **changes)


@dataclass(eq=False)
class Stream:
    """One stream of a robot, as the gateway sees it."""

    hello: Hello
    session_id: str
    epoch: int
    observations: list[ControlObservation] = field(default_factory=list)
    received: list[Any] = field(default_factory=list)
    """all messages after Hello"""
    out: queue.Queue[ServerMessage | bytes | None] = field(default_factory=queue.Queue)
    mute: bool = False
    """answers nothing any more, not even pings"""

    def chunk(self, seen: ControlObservation, first: float = 0.0, **changes: Any) -> ActionChunk:
        """A chunk of 16 steps that answers an observation; the first action is `first` in every dimension."""
        rows = first + np.repeat(np.arange(16, dtype=np.float32)[:, None], len(POLICY.action.names), axis=1)
        origin = {"session_id": self.session_id, "epoch": self.epoch, "dt_ns": round(DT_S * 1e9)}
        times = {"captured_mono_ns": seen.images[0].captured_mono_ns}
        return chunk_of(rows, seen.control_step, seen.sequence, **(origin | times | changes))

    def send(self, *messages: ServerMessage | bytes) -> None:
        """Bytes are sent as they are."""
        for message in messages:
            self.out.put(message)

    def end(self) -> None:
        """Ends the stream with status OK."""
        self.out.put(None)


@dataclass(eq=False)
class Gateway:
    """What the server is told to do, and what it saw."""

    policy: PolicyInfo = POLICY
    refusal: StreamError | None = None
    """the answer to Hello instead of a Welcome"""
    answer: Callable[[Stream, ControlObservation], None] = lambda stream, seen: stream.send(stream.chunk(seen))
    resumes: bool = True
    committed: int = 0
    """sequence that the next Welcome and ResetAck ask for"""
    streams: list[Stream] = field(default_factory=list)
    epoch: int = 0
    opened: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    address: str = ""
    _server: Any = None

    def start(self, port: int = 0) -> None:
        methods = {
            "GetPolicy": grpc.unary_unary_rpc_method_handler(
                lambda raw, _: policy_message(self.policy).SerializeToString()
            ),
            "Control": grpc.stream_stream_rpc_method_handler(self._control),
        }
        self._server = grpc.server(ThreadPoolExecutor(8))
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
        self.address = f"127.0.0.1:{self._server.add_insecure_port(f'127.0.0.1:{port}')}"
        self._server.start()

    def stop(self) -> None:
        """Cuts every stream, as the end of the process does."""
        self._server.stop(None).wait(10)

    def restart(self) -> None:
        self.start(int(self.address.rpartition(":")[2]))

    @property
    def stream(self) -> Stream:
        return self.streams[-1]

    def _control(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        hello = parse_client_message(next(requests))
        assert isinstance(hello, Hello)
        if self.refusal is not None:
            yield server_message(self.refusal).SerializeToString()
            return
        self.epoch += 1
        resumed = self.resumes and hello.resume_session_id is not None
        session_id = (hello.resume_session_id if resumed else None) or f"session-{self.epoch}"
        stream = Stream(hello, session_id, self.epoch)
        self.streams.append(stream)
        context.add_callback(stream.end)
        stream.send(self._welcome(stream, resumed))
        threading.Thread(target=self._read, args=(requests, stream), daemon=True).start()
        self.opened.release()
        while (message := stream.out.get()) is not None:
            yield message if isinstance(message, bytes) else server_message(message).SerializeToString()

    def _welcome(self, stream: Stream, resumed: bool) -> Welcome:
        return Welcome(
            session_id=stream.session_id,
            epoch=stream.epoch,
            server_version="0",
            policy=self.policy,
            dt_ns=round(DT_S * 1e9),
            max_in_flight=1,
            ping_interval_ms=100,
            resumed=resumed,
            next_sequence=self.committed,
            resume_within_ms=10_000,
        )

    def _read(self, requests: Iterator[bytes], stream: Stream) -> None:
        try:
            for raw in requests:
                self._take(stream, parse_client_message(raw))
        except grpc.RpcError:
            pass
        except Exception as error:  # noqa: BLE001  # grpc raises a bare Exception where the stream is cancelled
            stream.received.append(error)
        stream.end()

    def _take(self, stream: Stream, message: Any) -> None:
        stream.received.append(message)
        if stream.mute:
            return
        match message:
            case ControlObservation():
                stream.observations.append(message)
                self.answer(stream, message)
            case Ping():
                stream.send(Pong(message.id, message.client_mono_ns, 1, 2))
            case ResetStream():
                self.epoch += 1
                stream.epoch = self.epoch
                stream.send(ResetAck(message.id, self.epoch, self.committed))
            case Bye():
                stream.end()


@contextmanager
def gateway() -> Iterator[Gateway]:
    served = Gateway()
    served.start()
    try:
        yield served
    finally:
        served.stop()
