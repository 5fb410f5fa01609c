"""Parsing and decoding: their deadline, the share of a sender, and the digests that they leave for the receipt."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from time import monotonic, monotonic_ns
from typing import TypeVar

import pytest
from starlette.requests import Request

from tests.clock import yield_to_loop
from tests.edge.fakes import (
    PICTURES,
    RecordingPolicy,
    example_image,
    example_limits,
    example_observation,
    example_spec,
)
from tests.edge.robots import Robot
from tests.edge.served import Served
from wavserve.core.errors import DeadlineExceeded
from wavserve.core.messages import EncodedImage, Observation
from wavserve.edge.decode_threads import DecodeThreads
from wavserve.edge.frontend import Arrival, Frontend
from wavserve.edge.grpc.calls import sender_of as grpc_sender_of
from wavserve.edge.http.api import sender_of
from wavserve.edge.limits import EdgeLimits

T = TypeVar("T")

LARGE_BODY = bytes(200_000)


@pytest.fixture
def policy() -> RecordingPolicy:
    return RecordingPolicy()


@pytest.fixture
def release() -> Iterator[threading.Event]:
    release = threading.Event()
    yield release
    release.set()


def frontend_of(
    policy: RecordingPolicy, num_threads: int, on_refused: Callable[[str], None] = lambda reason: None
) -> Frontend:
    return Frontend(policy, example_limits(), on_refused, DecodeThreads(num_threads))


def arrival(sender: str, deadline_s: float | None = None) -> Arrival:
    return Arrival(monotonic_ns(), None if deadline_s is None else monotonic() + deadline_s, sender=sender)


def occupy(frontend: Frontend, sender: str, release: threading.Event) -> asyncio.Task[bool]:
    """A thread that stands still until it is released."""
    return asyncio.create_task(frontend.threads.run(partial(release.wait, 30), sender, None))


async def test_a_deadline_passes_while_images_wait_for_a_thread(
    policy: RecordingPolicy, release: threading.Event
) -> None:
    refused: list[str] = []
    frontend = frontend_of(policy, 1, refused.append)
    busy = occupy(frontend, "a", release)
    await yield_to_loop()
    with pytest.raises(DeadlineExceeded) as caught:
        await frontend.plan(example_observation(deadline_ms=50), arrival("b"))
    assert not release.is_set()
    assert (refused, caught.value.missed) == (["deadline"], None)
    release.set()
    await busy
    assert policy.requests == []


async def test_a_deadline_passes_while_a_body_is_parsed(policy: RecordingPolicy, release: threading.Event) -> None:
    frontend = frontend_of(policy, 2)

    def read(_body: bytes) -> Observation:
        release.wait(30)
        return example_observation()

    with pytest.raises(DeadlineExceeded):
        await frontend.parse(read, LARGE_BODY, arrival("a", 0.05))
    assert not release.is_set()


async def test_a_sender_whose_share_is_taken_delays_nobody_else(
    policy: RecordingPolicy, release: threading.Event
) -> None:
    frontend = frontend_of(policy, 2)
    busy = occupy(frontend, "a", release)
    await yield_to_loop()
    async with asyncio.timeout(30):
        await frontend.plan(example_observation(), arrival("b"))
        await frontend.parse(lambda _body: example_observation(), LARGE_BODY, arrival("b"))
    with pytest.raises(DeadlineExceeded):
        await frontend.plan(example_observation(deadline_ms=50), arrival("a"))
    release.set()
    await busy
    assert len(policy.requests) == 1


class NotedThreads(DecodeThreads):
    """Notes how many works each thread was given."""

    def __init__(self) -> None:
        super().__init__(4)
        self.given: list[int] = []

    async def run_in_turn(self, works: Sequence[Callable[[], T]], sender: str, deadline: float | None) -> Sequence[T]:
        self.given.append(len(works))
        return await super().run_in_turn(works, sender, deadline)


@pytest.mark.parametrize(("side", "given"), [(128, [2]), (400, [1, 1])])
async def test_one_thread_decodes_images_that_are_small(policy: RecordingPolicy, side: int, given: list[int]) -> None:
    policy.spec = example_spec("area")
    threads = NotedThreads()
    frontend = Frontend(policy, EdgeLimits(10**6, 10**6, 10**6), threads=threads)
    images = tuple(example_image(camera, "png", (side, side)) for camera in ("agentview", "wrist"))
    await frontend.plan(example_observation(images=images), arrival("a"))
    assert threads.given == given
    assert all(image.shape == (128, 128, 3) for image in policy.requests[0].images.values())


async def test_images_are_hashed_where_they_are_decoded(policy: RecordingPolicy) -> None:
    await frontend_of(policy, 2).plan(example_observation(), arrival("a"))
    (request,) = policy.requests
    digests = {camera: hashlib.sha256(image.tobytes()).hexdigest() for camera, image in request.images.items()}
    assert digests == dict(request.image_digests)


def test_a_costly_image_is_refused_by_every_edge(robot: Robot, served: Served) -> None:
    """It took 20 s to decode."""
    costly = EncodedImage("wrist", "jpeg", (PICTURES / "jpeg_3500_scans.jpg").read_bytes())
    began = monotonic()
    reply = robot.plan(example_observation(images=(example_image("agentview"), costly)))
    assert (reply.name, reply.content["field"]) == ("invalid-request", "images.wrist.data")
    assert monotonic() - began < 5
    assert served.policy.requests == []


def test_an_http_sender_is_its_address() -> None:
    scope = {"type": "http", "client": ("10.0.0.7", 51234)}
    assert sender_of(Request(scope)) == "10.0.0.7"
    assert sender_of(Request(scope | {"client": ("10.0.0.7", 51235)})) == "10.0.0.7"
    assert sender_of(Request(scope | {"client": None})).startswith("connection ")


@pytest.mark.parametrize(
    ("peer", "sender"),
    [
        ("ipv4:10.0.0.7:51234", "10.0.0.7"),
        ("ipv6:%5B::1%5D:51234", "::1"),
        ("ipv6:[fe80::1%25eth0]:51234", "fe80::1%eth0"),
        ("unix:", "unix:"),
        ("unix:/tmp/robot", "unix:/tmp/robot"),
    ],
)
def test_a_grpc_sender_is_its_address(peer: str, sender: str) -> None:
    class Context:
        def peer(self) -> str:
            return peer

    assert grpc_sender_of(Context()) == sender  # type: ignore[arg-type]  # all that is asked of it


def test_a_body_that_is_small_is_parsed_where_it_arrived(policy: RecordingPolicy) -> None:
    """Its bound keeps the event loop free, and a thread costs more."""
    seen: list[threading.Thread] = []

    def read(body: bytes) -> Observation:
        seen.append(threading.current_thread())
        return example_observation(instruction=json.loads(body))

    asyncio.run(frontend_of(policy, 2).parse(read, b'"go"', arrival("a")))
    assert seen == [threading.main_thread()]
