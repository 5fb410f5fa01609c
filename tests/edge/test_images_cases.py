"""A camera edge's acceptance list: each picture is decoded right or refused with its reason.

Pixels are compared with OpenCV, which decodes a PNG with another library (libpng), and a JPEG with its own build of
libjpeg-turbo.
`python -m tests.edge.test_images_cases` prints the table.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.edge.fakes import PICTURES
from wavserve.core.errors import InvalidRequest
from wavserve.core.messages import EncodedImage
from wavserve.core.spec import CameraSpec
from wavserve.edge.images.decode import decode
from wavserve.edge.limits import EdgeLimits

LIMITS = EdgeLimits(max_body_bytes=2**25, max_image_bytes=2**24, max_image_pixels=2**23)
MAX_DIFFERENCE = {".jpg": 2, ".png": 0}

DECODED = (
    "jpeg_gray.jpg",
    "jpeg_no_dht.jpg",
    "jpeg_plain.jpg",
    "jpeg_progressive.jpg",
    "jpeg_restart.jpg",
    "png_interlaced.png",
    "png_palette.png",
    "png_rgba.png",
    "png_trailing_zeros.png",
)
REFUSED = {
    "jpeg_3500_scans.jpg": ("a complete JPEG", "broken data: a scan that does not continue the ones before it"),
    "jpeg_cmyk.jpg": ("an RGB or gray image", "4 channels (CMYK)"),
    "jpeg_cut_with_eoi.jpg": ("a complete JPEG", "broken data: premature end of data segment"),
    "jpeg_exif_6.jpg": ("an upright image, orientation 1", "EXIF orientation 6"),
    "jpeg_lost_middle.jpg": ("a complete JPEG", "broken data: premature end of data segment"),
    "png_half_the_rows.png": ("a complete PNG", "broken data: 24640 bytes of rows, 49280 needed"),
    "png_rgb12in16.png": ("8 bits a channel", "16 bits a channel"),
}


def decoded(name: str) -> NDArray[np.uint8]:
    data = (PICTURES / name).read_bytes()
    encoding = "jpeg" if name.endswith(".jpg") else "png"
    height, width = (2896, 2896) if "3500" in name else (128, 128)
    return decode(EncodedImage("top", encoding, data), CameraSpec("top", height, width), LIMITS).pixels


def reference(name: str) -> NDArray[np.uint8]:
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    return np.asarray(cv2.imread(str(PICTURES / name), flags), np.uint8)[..., ::-1]


def difference(name: str) -> int:
    return int(np.abs(decoded(name).astype(int) - reference(name)).max())


def test_every_picture_has_its_expectation() -> None:
    assert {path.name for path in PICTURES.iterdir()} == {*DECODED, *REFUSED}


@pytest.mark.parametrize("name", DECODED)
def test_what_is_whole_is_decoded_right(name: str) -> None:
    assert difference(name) <= MAX_DIFFERENCE[Path(name).suffix]


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_what_was_sent_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decoded(name)
    assert (caught.value.field, caught.value.expected, caught.value.actual) == ("images.top.data", *REFUSED[name])


def table() -> str:
    rows = ["| picture | outcome | reason | largest pixel difference |", "|---|---|---|---|"]
    for name in sorted((*DECODED, *REFUSED)):
        try:
            rows.append(f"| {name} | decoded | | {difference(name)} |")
        except InvalidRequest as error:
            rows.append(f"| {name} | refused | expected {error.expected}, got {error.actual} | |")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
