"""Three robots, one for each wire format, on real loopback sockets. All report a reply in the same form."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import grpc
import httpx
import numpy as np
from google.protobuf import any_pb2
from google.protobuf.json_format import MessageToDict
from google.rpc import error_details_pb2, status_pb2
from starlette.types import ASGIApp

from wavserve.core.messages import EncodedImage, Observation, json_integer
from wavserve.core.rtc import RtcRequest
from wavserve.edge.compat.tables import CompatConfig
from wavserve.edge.frontend import Frontend, PolicyProtocol
from wavserve.edge.grpc.plan import create_grpc_server
from wavserve.edge.http.api import create_http_app
from wavserve.edge.http.open_connections import ConnectionLimits
from wavserve.edge.http.server import create_http_server
from wavserve.edge.limits import EdgeLimits
from wavserve.edge.trail import Trail
from wavserve.edge.websocket.openpi import OpenpiEndpoint
from wavserve.pb import wavserve_pb2 as pb
from wavserve.pb.wavserve_pb2_grpc import PlanServiceStub
from wavserve.system.telemetry import Metrics
from wavserve.wire import parts, requests

MANY_CONNECTIONS = ConnectionLimits(max_connections=256, max_per_address=256)
NO_COMPAT = CompatConfig(executed_steps=1)
MEDIA = {"jpeg": "image/jpeg", "png": "image/png"}


@dataclass(frozen=True)
class Address:
    http: str
    grpc: str


@contextmanager
def serving(
    policy: PolicyProtocol,
    limits: EdgeLimits,
    metrics: Metrics,
    connections: ConnectionLimits = MANY_CONNECTIONS,
    compat: CompatConfig = NO_COMPAT,
    trail: Trail | None = None,
) -> Iterator[Address]:
    """Serves both edges from one event loop in one thread, as `app` does, on free loopback ports."""
    address: Future[Address] = Future()
    stop = threading.Event()
    edges = (
        create_http_app(policy, limits, metrics, compat, trail),
        OpenpiEndpoint(Frontend(policy, limits, metrics.plans.refused, trail=trail or Trail()), compat, metrics),
        partial(create_grpc_server, policy, limits, metrics, connections.max_connections, trail=trail),
    )
    thread = threading.Thread(target=lambda: asyncio.run(_serve(edges, connections, address, stop)))
    thread.start()
    try:
        yield address.result(timeout=30)
    finally:
        stop.set()
        thread.join()


async def _serve(
    edges: tuple[ASGIApp, OpenpiEndpoint, Callable[[], grpc.aio.Server]],
    connections: ConnectionLimits,
    address: Future[Address],
    stop: threading.Event,
) -> None:
    app, openpi, make_rpc = edges
    http = create_http_server(app, connections, 5, openpi)
    # asyncio sets TCP_NODELAY only on a socket whose protocol is stated as TCP. Without it every answer waits 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen()  # a robot may connect before the server runs
    rpc = make_rpc()
    port = rpc.add_insecure_port("127.0.0.1:0")
    await rpc.start()
    serving_http = asyncio.create_task(http.serve(sockets=[listener]))
    address.set_result(Address(f"http://127.0.0.1:{listener.getsockname()[1]}", f"127.0.0.1:{port}"))
    await asyncio.to_thread(stop.wait)
    http.should_exit = True
    await serving_http
    await rpc.stop(None)


@dataclass(frozen=True)
class Reply:
    """One reply. `code`: HTTP status or gRPC code name; `content`: the answer, or the problem's facts."""

    code: int | str
    content: dict[str, Any]

    @property
    def name(self) -> str:
        """The error's public name, such as `too-large`."""
        return str(self.content["type"]).removeprefix("urn:wavserve:problem:")


def body_of(observation: Observation, with_data: bool = True) -> dict[str, Any]:
    """The JSON of a request; without data, the `request` part of a multipart one."""
    names = ("state", "instruction", "session_id", "sequence", "control_step", "executed_steps", "policy", "seed")
    names += ("deadline_ms", "imagine_chunks")
    body = {name: getattr(observation, name) for name in names}
    body |= {name: json_integer(body[name]) for name in ("sequence", "control_step", "seed") if body[name] is not None}
    return body | {
        "planner": dict(observation.options),
        "rtc": None if observation.rtc is None else _rtc_of(observation.rtc),
        "images": [_image_of(image, with_data) for image in observation.images],
    }


def _rtc_of(rtc: RtcRequest) -> dict[str, Any]:
    same = {each.name: getattr(rtc, each.name) for each in fields(rtc)}
    return same | {"prev_chunk_left_over": np.asarray(rtc.prev_chunk_left_over).tolist()}


def _image_of(image: EncodedImage, with_data: bool) -> dict[str, Any]:
    facts = {"camera": image.camera, "encoding": image.encoding, "height": image.height, "width": image.width}
    facts |= {"channels": image.channels, "captured_mono_ns": json_integer(image.captured_mono_ns)}
    return facts | ({"data": base64.b64encode(image.data).decode()} if with_data else {})


class JsonRobot:
    """POST /v1/plan as JSON."""

    kind = "json"

    def __init__(self, address: Address) -> None:
        self.client = httpx.Client(base_url=address.http, timeout=30)

    def plan(self, observation: Observation) -> Reply:
        body = json.dumps(body_of(observation))  # NaN and infinity become the bare words that Python writes
        return reply_of(self.client.post("/v1/plan", content=body, headers={"content-type": "application/json"}))

    def reset(self, session_id: str) -> Reply:
        return reply_of(self.client.post(f"/v1/sessions/{session_id}/reset"))

    def close(self) -> None:
        self.client.close()


class MultipartRobot(JsonRobot):
    """POST /v1/plan as multipart, a binary part per camera."""

    kind = "multipart"

    def plan(self, observation: Observation) -> Reply:
        facts = body_of(observation, with_data=False)
        by_camera: dict[str, dict[str, Any]] = {image["camera"]: image for image in facts["images"]}
        facts["images"] = list(by_camera.values())  # each camera is described once, even where its part comes twice
        files: list[tuple[str, Any]] = [("request", (None, json.dumps(facts), "application/json"))]
        for image in observation.images:
            media = MEDIA.get(image.encoding, "application/octet-stream")
            files.append((image.camera, (f"{image.camera}.bin", image.data, media)))
        return reply_of(self.client.post("/v1/plan", files=files))


async def get_in_process(app: ASGIApp, path: str) -> httpx.Response:
    """GET from an app that no socket serves."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        return await client.get(path)


def reply_of(response: httpx.Response) -> Reply:
    media = "application/json" if response.is_success else "application/problem+json"
    assert response.headers["content-type"] == media, response.text
    return Reply(response.status_code, response.json())


class GrpcRobot:
    """Plan over gRPC, through the generated stub."""

    kind = "grpc"

    def __init__(self, address: Address) -> None:
        self.channel = grpc.insecure_channel(address.grpc)
        self.stub = PlanServiceStub(self.channel)

    def plan(self, observation: Observation) -> Reply:
        return self.call(self.stub.Plan, message_of(observation))

    def reset(self, session_id: str) -> Reply:
        return self.call(self.stub.Reset, pb.ResetRequest(session_id=session_id))

    def call(self, method: Any, message: Any) -> Reply:
        try:
            answer = method(message, timeout=30)
        except grpc.RpcError as error:
            return Reply(error.code().name, facts_of(error))
        every_field = {"preserving_proto_field_name": True, "always_print_fields_with_no_presence": True}
        return Reply("OK", MessageToDict(answer, **every_field))

    def close(self) -> None:
        self.channel.close()


def facts_of(error: Any) -> dict[str, Any]:
    """The details of a failed call, under the names of a problem document."""
    packed = dict(error.trailing_metadata())["grpc-status-details-bin"]
    status = status_pb2.Status.FromString(packed)
    assert (status.code, status.message) == (error.code().value[0], error.details())
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    facts: dict[str, Any] = {"detail": status.message}
    for detail in status.details:
        assert isinstance(detail, any_pb2.Any)
        if detail.Unpack(info):
            assert info.domain == "wavserve"
            facts |= {"type": info.reason.lower().replace("_", "-"), **info.metadata}
        if detail.Unpack(bad):
            assert [violation.field for violation in bad.field_violations] == [facts["field"]]
    return facts


def message_of(observation: Observation) -> pb.PlanRequest:
    """An observation as protobuf. A value that protobuf has no name for is sent as an unknown field or number."""
    known = {name: value for name, value in observation.options.items() if name in parts.OPTION_NAMES}
    message = requests.plan_request(replace(observation, images=(), options=known))
    if known != dict(observation.options):
        message.planner.MergeFromString(bytes([0xF8, 0x06, 0x01]))  # field 111, varint 1
    for image in observation.images:
        entry = message.images.add(camera=image.camera, data=image.data, height=image.height, width=image.width)
        entry.encoding = dict(pb.Image.Encoding.items()).get(image.encoding.upper(), 99)  # type: ignore[assignment]  # open
        entry.channels, entry.captured_mono_ns = image.channels, image.captured_mono_ns
    return message


ROBOTS = (JsonRobot, MultipartRobot, GrpcRobot)
Robot = JsonRobot | GrpcRobot
