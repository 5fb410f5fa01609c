"""Image files as cameras and tools write them, and as damage leaves them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.edge.fakes import example_pixels
from wavserve.core.messages import EncodedImage
from wavserve.core.spec import CameraSpec
from wavserve.edge.images.decode import decode
from wavserve.edge.limits import EdgeLimits

LIMITS = EdgeLimits(max_body_bytes=2**25, max_image_bytes=2**24, max_image_pixels=2**23)
EOI = b"\xff\xd9"


def noisy_pixels() -> NDArray[np.uint8]:
    """A smooth image with a camera's noise, `[128, 128, 3]`."""
    noise = np.random.default_rng(1).normal(0, 8, (128, 128, 3))
    return np.clip(example_pixels().astype(int) + noise, 0, 255).astype(np.uint8)


def encoded(pixels: NDArray[np.uint8], encoding: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, encoding, **options)
    return buffer.getvalue()


COLOUR, GRAY = noisy_pixels(), noisy_pixels()[..., 0]
JPEGS = {
    "4:2:0": encoded(COLOUR, subsampling=2),
    "4:2:2": encoded(COLOUR, subsampling=1),
    "4:4:4": encoded(COLOUR, subsampling=0),
    "optimised": encoded(COLOUR, optimize=True),
    "progressive": encoded(COLOUR, progressive=True),
    "gray": encoded(GRAY),
    "gray progressive": encoded(GRAY, progressive=True),
    "restart": encoded(COLOUR, restart_marker_rows=1),
    "short restart": encoded(COLOUR, restart_marker_blocks=2, subsampling=0),
    "progressive restart": encoded(COLOUR, progressive=True, restart_marker_rows=1),
}


def pixels_of(data: bytes, encoding: str = "jpeg", size: tuple[int, int] = (128, 128)) -> NDArray[np.uint8]:
    """The pixels from our decoder. Raises InvalidRequest for what it refuses."""
    return decode(EncodedImage("top", encoding, data), CameraSpec("top", *size), LIMITS).pixels


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def exif(orientation: int, order: str = "<", kind: str = "H") -> bytes:
    """EXIF with a make and an orientation, without the `Exif` prefix."""
    magic = b"II*\0" if order == "<" else b"MM\0*"
    number = {"B": 1, "H": 3, "I": 4}[kind]
    make = struct.pack(f"{order}HHI4s", 0x010F, 2, 4, b"cam\0")
    value = struct.pack(order + kind, orientation).ljust(4, b"\0")
    return magic + struct.pack(f"{order}IH", 8, 2) + make + struct.pack(f"{order}HHI4s", 0x0112, number, 1, value)


def with_segment(jpeg: bytes, added: bytes, before: bytes) -> bytes:
    """`before`: the marker before which the segment goes."""
    at = len(jpeg) - 2 if before == EOI else jpeg.index(before)
    return jpeg[:at] + added + jpeg[at:]


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def chunks_of(png: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 8
    while at < len(png):
        length, kind = struct.unpack_from(">I4s", png, at)
        found.append((kind, png[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def rebuilt(png: bytes, change: Callable[[bytes, bytes], list[tuple[bytes, bytes]]]) -> bytes:
    """The PNG with each chunk (name, body) replaced by `change`'s chunks."""
    changed = [new for kind, body in chunks_of(png) for new in change(kind, body)]
    return png[:8] + b"".join(chunk(kind, body) for kind, body in changed)
