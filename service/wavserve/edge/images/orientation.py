"""Refuses an image whose metadata says that it must be turned, because a camera of a policy has one orientation.

Reads EXIF and XMP, which JPEG and PNG share. EXIF that cannot be read is refused as well: it may state a turn.
"""

from __future__ import annotations

import re
import struct

from wavserve.edge.images.refusal import ImageRefused

EXPECTED = "an upright image, orientation 1"
_TAG = 0x0112
_MAX_ENTRIES = 256  # a camera writes a few dozen
_VALUE_FORMATS = {1: "B", 3: "H", 4: "I"}  # byte, short, long
_IN_XMP = re.compile(rb"""\bOrientation\b(?:\s*=\s*["']|[^<>]{0,200}+>)\s*([^"'<\s]{1,8})""")
"""An attribute or an element of any prefix, because a document chooses the prefix of the namespace itself."""


def check_exif(tiff: bytes) -> None:
    """Raises ImageRefused for an orientation other than 1. `tiff`: EXIF without its `Exif` prefix."""
    try:
        orientations = _orientations(tiff)
    except struct.error:
        raise ImageRefused(EXPECTED, "EXIF that cannot be read") from None
    for orientation in orientations:
        if orientation != 1:
            raise ImageRefused(EXPECTED, f"EXIF orientation {orientation}")


def check_xmp(xmp: bytes) -> None:
    """Raises ImageRefused for an orientation other than 1."""
    for found in _IN_XMP.finditer(xmp.replace(b"\0", b"")):  # UTF-16 and UTF-32 become ASCII
        if found[1] != b"1":
            raise ImageRefused(EXPECTED, f"XMP orientation {found[1].decode('ascii', 'backslashreplace')}")


def _orientations(tiff: bytes) -> list[int]:
    """Every orientation in the first directory. Raises struct.error where the bytes are no TIFF or end too early."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        raise struct.error("no byte order")
    (start,) = struct.unpack_from(f"{order}I", tiff, 4)
    (num_entries,) = struct.unpack_from(f"{order}H", tiff, start)
    if num_entries > _MAX_ENTRIES:
        raise struct.error("too many entries")
    found: list[int] = []
    for at in range(start + 2, start + 2 + 12 * num_entries, 12):
        tag, kind, _, value = struct.unpack_from(f"{order}HHI4s", tiff, at)
        if tag == _TAG:
            if kind not in _VALUE_FORMATS:
                raise struct.error("no whole number")
            found += struct.unpack_from(order + _VALUE_FORMATS[kind], value)
    return found
