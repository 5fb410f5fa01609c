"""Orientation in a PNG's text chunks: XMP, and the EXIF that older tools write as hexadecimal text."""

from __future__ import annotations

import zlib

from wavserve.edge.images import orientation
from wavserve.edge.images.refusal import ImageRefused, broken

KINDS = (b"tEXt", b"zTXt", b"iTXt")
MAX_TEXT_BYTES = 2**18
"""of a text that may state an orientation, inflated; other texts are not inflated"""
_XMP = (b"XML:com.adobe.xmp", b"Raw profile type xmp")
_EXIF = (b"Raw profile type exif", b"Raw profile type APP1")


def check(kind: bytes, body: bytes) -> bool:
    """Whether a text may state an orientation. Raises ImageRefused for one other than 1, or a text too long to read."""
    keyword, _, rest = body.partition(b"\0")
    if keyword not in (*_XMP, *_EXIF):
        return False
    text = _text(kind, rest)
    profile = _unhexed(text) if keyword.startswith(b"Raw") else text
    if profile.startswith(b"Exif\0\0"):
        orientation.check_exif(profile[6:])
    else:
        orientation.check_xmp(profile)
    return True


def _text(kind: bytes, rest: bytes) -> bytes:
    compressed = kind == b"zTXt"
    if kind == b"zTXt":
        rest = rest[1:]
    if kind == b"iTXt":
        compressed = rest[:1] == b"\1"
        rest = rest[2:].split(b"\0", 2)[-1]  # after language and translated keyword
    if not compressed:
        text = rest
    else:
        try:
            text = zlib.decompressobj().decompress(rest, MAX_TEXT_BYTES + 1)
        except zlib.error as error:
            raise broken("PNG", f"text: {error}") from None
    if len(text) > MAX_TEXT_BYTES:
        raise ImageRefused(f"at most {MAX_TEXT_BYTES} bytes of metadata in a text", "more")
    return text


def _unhexed(text: bytes) -> bytes:
    """The bytes of a raw profile: an empty line, its name, its length, then hexadecimal digits in lines."""
    try:
        return bytes.fromhex(b"".join(text.split()[2:]).decode("ascii"))
    except ValueError:
        raise ImageRefused(orientation.EXPECTED, "a raw profile that cannot be read") from None
