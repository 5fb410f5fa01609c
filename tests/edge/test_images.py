"""Decoding gives the right pixels or a typed error, whatever the bytes are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.edge.fakes import example_bytes, example_image, example_limits, example_pixels
from wavserve.core.errors import InvalidRequest
from wavserve.core.messages import ENCODINGS, EncodedImage
from wavserve.core.resize import resize
from wavserve.core.spec import CameraSpec
from wavserve.edge.images.decode import decode

CAMERA = CameraSpec("agentview", 128, 128)
ANY_SIZE = replace(CAMERA, resize="bilinear")


@pytest.mark.parametrize("encoding", ["raw_rgb8", "raw_bgr8", "png"])
def test_lossless_encodings_give_the_pixels(encoding: str) -> None:
    pixels = example_pixels(seed=9)
    decoded = decode(example_image("agentview", encoding), CAMERA, example_limits()).pixels
    assert decoded.tolist() == pixels.tolist()
    assert decoded.flags.writeable
    assert decoded.flags.c_contiguous


def test_jpeg_is_decoded_to_rgb() -> None:
    decoded = decode(example_image("agentview", "jpeg"), CAMERA, example_limits()).pixels
    assert np.abs(decoded.astype(int) - example_pixels(seed=9)).mean() < 3


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_filter_keeps_a_uniform_image_uniform(encoding: str) -> None:
    flat = np.full((200, 300, 3), (250, 120, 10), np.uint8)
    image = EncodedImage("agentview", encoding, example_bytes(flat, encoding), height=200, width=300)
    decoded = decode(image, ANY_SIZE, example_limits()).pixels
    assert decoded.shape == (128, 128, 3)
    assert np.abs(decoded.astype(int) - flat[0, 0]).max() <= 3


@pytest.mark.parametrize(("height", "width"), [(256, 256), (480, 640), (2, 2), (6, 10), (254, 1000), (640, 480)])
def test_halving_by_area_gives_the_pixels_of_pillow(height: int, width: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    expected = np.array(Image.fromarray(pixels).resize((width // 2, height // 2), Image.Resampling.BOX))
    halved = resize(pixels, height // 2, width // 2, "area")
    assert np.array_equal(halved, expected)
    assert halved.flags.writeable
    assert halved.flags.c_contiguous


def test_halving_rounds_every_pair_of_values_as_pillow_does() -> None:
    first, second = np.divmod(np.arange(65536, dtype=np.uint32), 256)
    rows = np.stack([first, second], axis=1).astype(np.uint8).reshape(256, 512)
    pixels = np.repeat(np.stack([rows, rows[::-1]], axis=1).reshape(512, 512)[..., None], 3, axis=2)
    expected = np.array(Image.fromarray(pixels).resize((256, 256), Image.Resampling.BOX))
    assert np.array_equal(resize(pixels, 256, 256, "area"), expected)


def test_area_is_the_mean_of_the_pixels_under_it() -> None:
    pixels = example_pixels(256, 256)
    image = EncodedImage("agentview", "raw_rgb8", pixels.tobytes(), 256, 256)
    decoded = decode(image, replace(CAMERA, resize="area"), example_limits()).pixels
    mean = pixels.reshape(128, 2, 128, 2, 3).mean(axis=(1, 3))
    assert np.abs(decoded - mean).max() <= 1


def mutated(data: bytes, changes: list[tuple[int, int]], keep: float) -> bytes:
    broken = bytearray(data[: round(len(data) * keep)])
    for position, value in changes:
        if broken:
            broken[position % len(broken)] = value
    return bytes(broken)


near_the_header = st.tuples(st.integers(0, 200), st.integers(0, 255))
anywhere = st.tuples(st.integers(0, 2**20), st.integers(0, 255))


@settings(max_examples=400, deadline=None)
@given(
    encoding=st.sampled_from(["jpeg", "png"]),
    changes=st.lists(near_the_header | anywhere, max_size=6),
    keep=st.floats(0, 1),
)
def test_damaged_images_are_decoded_or_refused(encoding: str, changes: list[tuple[int, int]], keep: float) -> None:
    image = example_image("agentview", encoding)
    image = replace(image, data=mutated(image.data, changes, keep))
    outcome: object
    try:
        outcome = decode(image, ANY_SIZE, example_limits()).pixels.shape
    except InvalidRequest as error:
        outcome = error.field.rpartition(".")[0]
    assert outcome in ((128, 128, 3), "images.agentview")
