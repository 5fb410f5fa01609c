"""Orientation in a PNG's text chunks: XMP, and the EXIF that older tools write as hexadecimal text."""

from __future__ import annotations

import zlib

from wavserve.edge.images import orientation
from wavserve.edge.images.refusal import ImageRefused, broken

KINDS = (b"tEXt", b"zTXt", b"iTXt")
MAX_TEXT_BYTES = 2**18
"""of a text that may state an orientation, inflated; other texts are not inflated"""
_XMP = b"xml:com.adobe.xmp"
_RAW = b"raw profile type "
_IN_RAW = (b"xmp", b"exif", b"app1")
_TIFF = (b"II*\0", b"MM\0*")


def check(kind: bytes, body: bytes) -> bool:
    """Whether a text may state an orientation. Raises ImageRefused for one other than 1, or a text too long to read."""
    written, _, rest = body.partition(b"\0")
    keyword = written.lower()  # readers ignore the case
    if keyword != _XMP and not (keyword.startswith(_RAW) and keyword.removeprefix(_RAW) in _IN_RAW):
        return False
    text = _text(kind, rest)
    profile = (text if keyword == _XMP else _unhexed(text)).removeprefix(b"Exif\0\0")
    if keyword.endswith(b"exif") or profile.startswith(_TIFF):
        orientation.check_exif(profile)
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
