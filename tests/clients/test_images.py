"""Pictures of a robot: turned, resized as the server resizes, JPEG; and raw where the extra is not installed."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from tests.edge.fakes import example_limits, example_pixels
from wavserve.clients.images import ImageEncoder, encode_images
from wavserve.core.errors import InvalidRequest
from wavserve.core.messages import EncodedImage
from wavserve.core.resize import Pixels
from wavserve.core.spec import CameraSpec, Resize
from wavserve.edge.images.decode import decode


def camera(resize: Resize = "area", **own: Any) -> CameraSpec:
    return CameraSpec("wrist", **({"height": 48, "width": 64, "resize": resize} | own))


def sent(spec: CameraSpec, picture: Pixels, **options: Any) -> EncodedImage:
    [image] = ImageEncoder([spec], **options).encode({"wrist": picture}, 7)
    return image


@pytest.mark.parametrize("size", [(96, 128), (120, 160), (33, 50)])
@pytest.mark.parametrize("name", ["area", "bilinear", "bicubic"])
def test_the_robot_resizes_to_the_pixels_that_the_server_would_make(name: Resize, size: tuple[int, int]) -> None:
    picture, spec = example_pixels(*size), camera(name)
    here = sent(spec, picture, jpeg_quality=None)
    there = EncodedImage("wrist", "raw_rgb8", picture.tobytes(), *size, 3)
    assert (here.height, here.width) == (48, 64)
    assert decode(here, spec, example_limits()).digest == decode(there, spec, example_limits()).digest


def test_a_picture_is_turned_where_policy_and_camera_differ() -> None:
    picture = example_pixels(48, 64)
    turned = camera("exact", orientation="rotated_180")
    as_is = sent(turned, picture, orientations={"wrist": "rotated_180"}, jpeg_quality=None)
    assert as_is.data == picture.tobytes() == sent(turned, picture, jpeg_quality=None).data
    other = sent(turned, picture, orientations={"wrist": "as_captured"}, jpeg_quality=None)
    assert other.data == np.rot90(picture, 2).tobytes()


def test_a_picture_travels_as_a_jpeg_that_the_server_takes() -> None:
    smooth = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None] * 3, (48, 64, 3))
    image = sent(camera("exact"), smooth)
    decoded = decode(image, camera("exact"), example_limits()).pixels
    assert (image.encoding, image.captured_mono_ns) == ("jpeg", 7)
    assert np.abs(decoded.astype(int) - smooth).max() <= 3
    assert len(image.data) < len(sent(camera("exact"), smooth, jpeg_quality=100).data) < smooth.nbytes


@pytest.mark.parametrize(
    ("pictures", "field", "actual"),
    [
        ({}, "images.wrist", "none"),
        ({"wrist": np.zeros((48, 64, 3), np.float32)}, "images.wrist", r"float32 \[48, 64, 3\]"),
        ({"wrist": np.zeros((48, 64), np.uint8)}, "images.wrist", r"uint8 \[48, 64\]"),
        ({"wrist": np.zeros((3, 48, 64), np.uint8)}, "images.wrist", r"uint8 \[3, 48, 64\]"),
        ({"wrist": b"jpeg"}, "images.wrist", "bytes"),
        ({"wrist": np.zeros((64, 48, 3), np.uint8)}, "images.wrist", "64 x 48"),
        ({"wrist": example_pixels(48, 64), "top": example_pixels(48, 64)}, "images.top", "unknown"),
    ],
)
def test_a_picture_that_the_policy_cannot_take_is_refused(pictures: Any, field: str, actual: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^{field}: expected .*{actual}"):
        encode_images(pictures, [camera("exact")])


def test_a_quality_that_no_jpeg_has_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="jpeg_quality: expected 1 to 100"):
        ImageEncoder([camera()], jpeg_quality=101)


WITHOUT_THE_EXTRA = """
import logging, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("PIL", "simplejpeg"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
import numpy as np
from wavserve.clients.images import ImageEncoder
from wavserve.core.spec import CameraSpec
logging.basicConfig(format="%(message)s")
encoder = ImageEncoder([CameraSpec("wrist", 48, 64, "bicubic")])
for _ in range(3):
    [image] = encoder.encode({"wrist": np.zeros((100, 100, 3), np.uint8)})
print(image.encoding, image.height, image.width, len(image.data))
"""


def test_without_the_extra_pictures_travel_raw_and_one_warning_says_so() -> None:
    ran = subprocess.run([sys.executable, "-c", WITHOUT_THE_EXTRA], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["raw_rgb8", "100", "100", "30000"]
    assert [line.partition(",")[0] for line in ran.stderr.splitlines()] == [
        "pictures travel as raw pixels",
        "the server resizes the pictures",
    ]
