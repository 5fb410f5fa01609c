"""A robot's link in a test: a real gRPC stream to a real server on loopback, over a policy with a fake backend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import grpc

from tests.clock import ManualClock
from tests.edge.fakes import example_observation
from tests.edge.robots import facts_of
from tests.planning.rig import Rig, RigOptions, example_request, rigged
from wavserve.core.control import ControlObservation, Hello, ServerMessage, Welcome
from wavserve.core.messages import EncodedImage
from wavserve.edge.frontend import Frontend, PolicyProtocol
from wavserve.edge.grpc.control.robots import Robots
from wavserve.edge.grpc.plan import create_grpc_server
from wavserve.edge.limits import EdgeLimits
from wavserve.edge.trail import Trail
from wavserve.pb import wavserve_pb2 as pb
from wavserve.pb.wavserve_pb2_grpc import PlanServiceStub
from wavserve.system.telemetry import Metrics
from wavserve.wire.control import client_message
from wavserve.wire.control_answers import server_message_from

LIMITS = EdgeLimits(max_body_bytes=2_000_000, max_image_bytes=1_000_000, max_image_pixels=512 * 512)
ANSWER_S = 15.0
"""How long a test waits for a message, on a machine that is busy with other things."""

M = TypeVar("M")


class Gate:
    """Holds every call of the backend until it is opened, and says when one has begun."""

    def __init__(self, is_open: bool = True) -> None:
        self.began = asyncio.Event()
        self.cancelled = asyncio.Event()
        self._open = asyncio.Event()
        if is_open:
            self._open.set()

    def close(self) -> None:
        self._open.clear()
        self.began.clear()

    def open(self) -> None:
        self._open.set()

    async def __call__(self, _verb: str) -> None:
        self.began.set()
        try:
            await self._open.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


class Link:
    """One stream, as a robot's client has it."""

    def __init__(self, stub: PlanServiceStub, spec: Any, hello: Hello) -> None:
        self.spec = spec
        self.hello = hello
        self.call: Any = stub.Control()
        self.welcome: Welcome | None = None

    async def send(self, *messages: Any) -> None:
        for message in messages:
            raw = message if isinstance(message, pb.ClientMessage) else client_message(message)
            await self.call.write(raw)

    async def receive(self, kind: type[M]) -> M:
        """The next message, which must be of this kind."""
        async with asyncio.timeout(ANSWER_S):
            raw = await self.call.read()
        assert raw is not grpc.aio.EOF, "the stream has ended"
        message: ServerMessage | None = server_message_from(raw)
        assert isinstance(message, kind), message
        return message

    async def open(self, **changes: Any) -> Welcome:
        """Says hello and is welcomed."""
        await self.send(replace(self.hello, **changes))
        self.welcome = await self.receive(Welcome)
        return self.welcome

    def observation(self, sequence: int, seed: int = 1, **changes: Any) -> ControlObservation:
        """An observation that the policy accepts."""
        request = example_request(self.spec, seed)
        images = tuple(
            EncodedImage(name, "raw_rgb8", pixels.tobytes(), *pixels.shape[:2])
            for name, pixels in request.images.items()
        )
        epoch = 1 if self.welcome is None else self.welcome.epoch
        fields: dict[str, Any] = {"epoch": epoch, "sequence": sequence, "instruction": "", "seed": seed}
        fields |= {"images": images, "state": tuple(request.state.tolist())}
        return ControlObservation(**{**fields, **changes})

    async def end(self) -> tuple[str, dict[str, Any]]:
        """The status that the stream ends with, and the error's facts. No message may come before it."""
        async with asyncio.timeout(ANSWER_S):
            try:
                raw = await self.call.read()
            except grpc.aio.AioRpcError as error:
                return error.code().name, facts_of(error)
            assert raw is grpc.aio.EOF, server_message_from(raw)
            return (await self.call.code()).name, {}

    async def hang_up(self) -> None:
        self.call.cancel()
        await asyncio.gather(self.call.code(), return_exceptions=True)


@dataclass
class Server:
    """A served policy, and robots that connect to it."""

    policy: PolicyProtocol
    robots: Robots
    metrics: Metrics
    stub: PlanServiceStub
    gate: Gate
    clock: ManualClock
    links: list[Link] = field(default_factory=list)

    def link(self, robot_id: str = "arm", **changes: Any) -> Link:
        """A stream that has not said hello yet."""
        info = Frontend(self.policy, LIMITS).info()
        hello = Hello(
            client_name="tests",
            client_version="1",
            robot_id=robot_id,
            embodiment=info.embodiment,
            policy=info.name,
            policy_digest=info.digest,
            state=info.state,
            action=info.action,
            control_hz=info.control_hz,
            cameras=info.cameras,
            instruction="pick",
        )
        link = Link(self.stub, self.policy.spec, replace(hello, **changes))
        self.links.append(link)
        return link

    def counted(self, name: str, **labels: str) -> float:
        """A metric's value."""
        return self.metrics.registry.get_sample_value(f"wavserve_{name}", labels) or 0.0

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(ANSWER_S):
            while not condition():  # noqa: ASYNC110  # what it looks at has no event
                await asyncio.sleep(0.005)


@asynccontextmanager
async def serving_policy(
    policy: PolicyProtocol, gate: Gate, limits: EdgeLimits = LIMITS, trail: Trail | None = None
) -> AsyncIterator[Server]:
    """Serves a policy over gRPC until the block ends."""
    clock, metrics = ManualClock(), Metrics()
    robots = Robots(clock)
    rpc = create_grpc_server(policy, limits, metrics, robots=robots, trail=trail)
    port = rpc.add_insecure_port("127.0.0.1:0")
    await rpc.start()
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
    server = Server(policy, robots, metrics, PlanServiceStub(channel), gate, clock)
    try:
        yield server
    finally:
        gate.open()
        for link in server.links:
            link.call.cancel()
        await channel.close()
        await rpc.stop(5.0)


@asynccontextmanager
async def serving_rig(
    options: RigOptions | None = None, trail: Trail | None = None
) -> AsyncIterator[tuple[Server, Rig]]:
    """Serves a policy with a fake backend, whose calls the server's gate holds."""
    gate = Gate()
    async with (
        rigged(replace(options or RigOptions(), before=gate)) as rig,
        serving_policy(rig.policy, gate, trail=trail) as server,
    ):
        yield server, rig


def example_message(sequence: int) -> pb.ClientMessage:
    """An observation for the recording policy, whose spec is another one than the rig's."""
    plain = example_observation()
    observation = pb.Observation(sequence=sequence, epoch=1, state=plain.state, instruction="pick")
    for image in plain.images:
        observation.images.add(camera=image.camera, encoding=image.encoding.upper(), data=image.data)
    return pb.ClientMessage(observation=observation)
