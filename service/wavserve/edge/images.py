"""Decodes images to pixels at the policy's size. An image that differs from its declaration is refused.

Decoding blocks, so it runs on worker threads and never on the event loop. An image's size is read from its header and
checked before any pixel is decoded. Nothing is repaired: no missing byte, no other colour mode, and no other size
unless the camera declares a filter.
"""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from wavserve.core.errors import InvalidRequest, TooLarge, UnsupportedMedia
from wavserve.core.messages import ENCODINGS, EncodedImage
from wavserve.core.spec import CameraSpec
from wavserve.edge.limits import EdgeLimits

Pixels = NDArray[np.uint8]

_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "area": Image.Resampling.BOX,
}
_RAW_ORDERS = {"raw_rgb8": "RGB", "raw_bgr8": "BGR"}
_SIGNATURES = {
    b"\xff\xd8\xff": "JPEG data",
    b"\x89PNG\r\n\x1a\n": "PNG data",
    b"GIF8": "GIF data",
    b"RIFF": "RIFF data",
}
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
# The errors that Pillow's two readers raise for malformed bytes, as a test with damaged images found.
_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error, zlib.error)


def match_cameras(images: Sequence[EncodedImage], cameras: Sequence[CameraSpec]) -> dict[str, EncodedImage]:
    """camera -> its image, in the policy's order. Raises InvalidRequest for a missing, unknown or repeated camera."""
    names = [camera.name for camera in cameras]
    counts = Counter(image.camera for image in images)
    for name, count in counts.items():
        if name not in names:
            raise InvalidRequest(f"images.{name}", f"one of the cameras {', '.join(names)}", "an unknown camera")
        if count > 1:
            raise InvalidRequest(f"images.{name}", "one image", f"{count} images")
    for name in names:
        if name not in counts:
            raise InvalidRequest(f"images.{name}", f"one image of each camera {', '.join(names)}", "no image")
    by_name = {image.camera: image for image in images}
    return {name: by_name[name] for name in names}


def decode(encoded: EncodedImage, camera: CameraSpec, limits: EdgeLimits) -> Pixels:
    """The image as `[height, width, 3]` RGB at the camera's size; writable, so that torch takes it without a copy.

    Raises UnsupportedMedia (encoding), TooLarge (bytes, pixels) or InvalidRequest naming `images.<camera>.<field>`.
    """
    field = f"images.{encoded.camera}"
    if encoded.encoding not in ENCODINGS:
        raise UnsupportedMedia(f"{field}.encoding", f"one of {', '.join(ENCODINGS)}", encoded.encoding)
    if encoded.channels not in (0, 3):
        raise InvalidRequest(f"{field}.channels", 3, encoded.channels)
    if len(encoded.data) > limits.max_image_bytes:
        raise TooLarge(f"{field}.data", f"at most {limits.max_image_bytes} bytes", f"{len(encoded.data)} bytes")
    read = _raw if encoded.encoding in _RAW_ORDERS else _compressed
    image = read(encoded, camera, limits, field)
    if image.size != (camera.width, camera.height):
        image = image.resize((camera.width, camera.height), _FILTERS[camera.resize])
    return np.array(image)


def _raw(encoded: EncodedImage, camera: CameraSpec, limits: EdgeLimits, field: str) -> Image.Image:
    height, width = encoded.height, encoded.width
    for side, value in (("height", height), ("width", width)):
        if value < 1:
            raise InvalidRequest(f"{field}.{side}", "the image's size, which raw encodings require", value)
    _check_size(height, width, camera, limits, field)
    if len(encoded.data) != height * width * 3:
        expected = f"{height * width * 3} bytes ({height} x {width} x 3)"
        raise InvalidRequest(f"{field}.data", expected, f"{len(encoded.data)} bytes")
    return Image.frombytes("RGB", (width, height), encoded.data, "raw", _RAW_ORDERS[encoded.encoding])


def _compressed(encoded: EncodedImage, camera: CameraSpec, limits: EdgeLimits, field: str) -> Image.Image:
    image = _open(encoded, field)
    height, width = image.height, image.width
    for side, stated, actual in (("height", encoded.height, height), ("width", encoded.width, width)):
        if stated not in (0, actual):
            raise InvalidRequest(f"{field}.{side}", f"{actual}, as the {encoded.encoding} header says", stated)
    _check_size(height, width, camera, limits, field)
    if image.mode != "RGB":
        raise InvalidRequest(f"{field}.data", "an RGB image", f"mode {image.mode}")
    if encoded.encoding == "png" and not encoded.data.endswith(_PNG_END):  # Pillow does not check the end
        raise InvalidRequest(f"{field}.data", "a complete PNG", "broken data: no IEND chunk at the end")
    try:
        image.load()
    except _DECODE_ERRORS as error:
        expected = f"a complete {encoded.encoding.upper()}"
        raise InvalidRequest(f"{field}.data", expected, f"broken data: {error}") from None
    return image


def _open(encoded: EncodedImage, field: str) -> Image.Image:
    """Reads the header, in the declared format only. This bypasses Pillow's format guessing and its bomb warning."""
    reader: Any = JpegImageFile if encoded.encoding == "jpeg" else PngImageFile
    try:
        image: Image.Image = reader(BytesIO(encoded.data))
    except _DECODE_ERRORS:
        detected = next((name for start, name in _SIGNATURES.items() if encoded.data.startswith(start)), "other data")
        declared = encoded.encoding.upper()
        broken = detected.startswith(declared)
        actual = f"a broken {declared} header" if broken else f"{detected}, {len(encoded.data)} bytes"
        raise InvalidRequest(f"{field}.data", f"{declared} data", actual) from None
    return image


def _check_size(height: int, width: int, camera: CameraSpec, limits: EdgeLimits, field: str) -> None:
    if height * width > limits.max_image_pixels:
        actual = f"{height * width} pixels ({height} x {width})"
        raise TooLarge(f"{field}.data", f"at most {limits.max_image_pixels} pixels", actual)
    if camera.resize == "exact" and (height, width) != (camera.height, camera.width):
        raise InvalidRequest(
            f"{field}.data", f"{camera.height} x {camera.width} (height x width)", f"{height} x {width}"
        )
