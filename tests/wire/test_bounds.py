"""What a protobuf request may cost: lengths are checked before messages are built."""

from __future__ import annotations

import contextlib
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.edge.fakes import example_observation
from wavserve.core.errors import InvalidRequest, TooLarge
from wavserve.pb import wavserve_pb2 as pb
from wavserve.wire import MAX_IMAGES, MAX_TEXT_BYTES, bounds
from wavserve.wire.requests import parse_get_policy_request, parse_plan_request, parse_reset_request, plan_request

MILLION = 1_000_000


def image(inner: bytes) -> bytes:
    """An entry of `images` with these fields."""
    length, size = bytearray(), len(inner)
    while size >= 0x80:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return b"\x2a" + bytes([*length, size]) + inner


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (b"\x2a\x00" * 10 * MILLION, "images"),
        (image(b"\x0a\x00" * 10 * MILLION), "request"),
        (image(b"\xf8\x06\x01" * 7 * MILLION), "request"),
        (b"\xf8\x06\x01" * 7 * MILLION, "request"),
        (b"\x0b" * 20 * MILLION, "request"),
        (b"\x35\0\0\0\0" * 4 * MILLION, "request"),
        (pb.PlanRequest(instruction="x" * 20 * MILLION).SerializeToString(), "instruction"),
        (pb.PlanRequest(state=[0.0] * 5 * MILLION).SerializeToString(), "state"),
        (pb.PlanRequest(images=[pb.Image(camera="x" * 20 * MILLION)]).SerializeToString(), "camera"),
        (pb.PlanRequest(planner=pb.PlannerOptions(mode="x" * 20 * MILLION)).SerializeToString(), "planner"),
    ],
    ids=["images", "cameras", "unknown in image", "unknown", "groups", "state", "text", "numbers", "camera", "planner"],
)
def test_twenty_megabytes_of_anything_but_images_build_nothing(raw: bytes, field: str) -> None:
    tracemalloc.start()
    with pytest.raises(InvalidRequest) as caught:
        bounds.check_plan_request(raw)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert caught.value.field == field
    assert peak < 10 * MILLION
    with pytest.raises(type(caught.value)):
        parse_plan_request(raw)


def test_other_requests_are_small() -> None:
    for parse in (parse_reset_request, parse_get_policy_request):
        with pytest.raises(TooLarge):
            parse(b"\x0a\x00" * MAX_TEXT_BYTES)


def test_an_image_may_be_long() -> None:
    observation = example_observation()
    message = plan_request(observation)
    message.images[0].data = bytes(20 * MILLION)
    assert len(parse_plan_request(message.SerializeToString()).images[0].data) == 20 * MILLION


def test_as_many_images_as_allowed_are_read() -> None:
    assert len(parse_plan_request(image(b"") * MAX_IMAGES).images) == MAX_IMAGES


@given(raw=st.binary(max_size=60))
def test_any_bytes_are_read_or_refused_by_name(raw: bytes) -> None:
    with contextlib.suppress(InvalidRequest):
        parse_plan_request(raw)
