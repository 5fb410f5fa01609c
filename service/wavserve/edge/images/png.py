"""Reads a PNG strictly: every checksum is right, and the image data has exactly the rows of the header.

Pillow undoes the filters and unpacks palettes. It gets only the chunks of the pixels, so that it inflates no text and
no profile. This module inflates the image data, because Pillow notices neither missing rows nor a wrong checksum.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from math import ceil

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from wavserve.edge.images import png_text
from wavserve.edge.images.orientation import check_exif
from wavserve.edge.images.refusal import ImageRefused, broken

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS = 10_000
MAX_PROFILES = 8
"""EXIF or XMP in text chunks, which are inflated"""
_NUM_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # gray, RGB, palette, gray and alpha, RGB and alpha
_PALETTE, _WITH_ALPHA = 3, (4, 6)
_OF_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT")
_DEPTHS = {_PALETTE: (1, 2, 4, 8)}  # of an index; a palette's colours have 8 bits
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Adam7: first column, first row, step of columns, step of rows"""
_PILLOW_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error)


@dataclass(frozen=True, slots=True)
class Png:
    """A PNG whose chunks are whole. `chunks`: of the pixels, by name; `header` is the first chunk's body."""

    height: int
    width: int
    depth: int
    colour: int
    interlaced: bool
    header: bytes
    chunks: dict[bytes, bytes]


def read(data: bytes) -> Png:
    """Reads the chunks of a PNG and inflates no image data. Raises ImageRefused."""
    parts: dict[bytes, list[memoryview]] = {}
    num_profiles, previous = 0, b""
    for kind, body in _chunks(data):
        _check_place(kind, previous, parts)
        if kind in _OF_PIXELS:
            parts.setdefault(kind, []).append(body)
        elif kind in png_text.KINDS:
            num_profiles += png_text.check(kind, bytes(body))
            if num_profiles > MAX_PROFILES:
                raise ImageRefused(f"at most {MAX_PROFILES} profiles in texts", "more")
        else:
            _check_other(kind, body)
        previous = kind
    chunks = {kind: b"".join(bodies) for kind, bodies in parts.items()}
    if b"IDAT" not in chunks:
        raise broken("PNG", "no image data")
    return _with_header(chunks.pop(b"IHDR"), chunks)


def pixels(png: Png) -> NDArray[np.uint8]:
    """`[height, width, 3]` RGB. Raises ImageRefused."""
    rows = _inflated(png)
    try:
        image = _open(png, rows)
        if png.colour == _PALETTE:
            _check_palette(png, image)
        if png.colour in _WITH_ALPHA or b"tRNS" in png.chunks:
            image = image.convert("RGBA")
            if image.getchannel("A").getextrema() != (255, 255):
                raise ImageRefused("an opaque image", "transparent pixels")
        return np.array(image if image.mode == "RGB" else image.convert("RGB"))
    except _PILLOW_ERRORS as error:
        raise broken("PNG", str(error)) from None


def _check_place(kind: bytes, previous: bytes, parts: Mapping[bytes, object]) -> None:
    """Raises ImageRefused for a chunk of the pixels that is repeated or out of order."""
    if (kind == b"IHDR") != (not parts):
        raise ImageRefused("PNG data", "a broken PNG header")
    if b"IDAT" in parts and kind in _OF_PIXELS and not previous == kind == b"IDAT":
        raise broken("PNG", f"chunk {kind.decode()} after the image data")
    if kind in parts and kind != b"IDAT":
        raise broken("PNG", f"chunk {kind.decode()} twice")


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Name and body of each chunk, as far as IEND."""
    view, pos = memoryview(data), len(SIGNATURE)
    for _ in range(MAX_CHUNKS):
        if pos + 12 > len(data):
            raise broken("PNG", "no IEND chunk at the end")
        length, kind = struct.unpack_from(">I4s", data, pos)
        end = pos + 12 + length
        if end > len(data):
            raise broken("PNG", "it ends within a chunk")
        if zlib.crc32(view[pos + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise broken("PNG", "a chunk with a wrong checksum")
        yield kind, view[pos + 8 : end - 4]
        if kind == b"IEND":
            return
        pos = end
    raise ImageRefused(f"at most {MAX_CHUNKS} chunks", "more")


def _check_other(kind: bytes, body: memoryview) -> None:
    """Refuses what changes the meaning of the pixels: a turn, an animation, an unknown chunk that decoders need."""
    if kind == b"eXIf":
        check_exif(bytes(body).removeprefix(b"Exif\0\0"))
    elif kind == b"fdAT" or (kind == b"acTL" and int.from_bytes(body[:4], "big") != 1):
        raise ImageRefused("one image", "an animation")
    elif not kind[0] & 0x20 and kind != b"IEND":
        raise ImageRefused("PNG chunks of the standard", f"chunk {kind.decode('ascii', 'backslashreplace')}")


def _with_header(header: bytes, chunks: dict[bytes, bytes]) -> Png:
    if len(header) != 13:
        raise ImageRefused("PNG data", "a broken PNG header")
    width, height, depth, colour, compression, filtering, interlace = struct.unpack(">IIBBBBB", header)
    if 0 in (height, width) or colour not in _NUM_CHANNELS or compression or filtering or interlace > 1:
        raise ImageRefused("PNG data", "a broken PNG header")
    if depth not in _DEPTHS.get(colour, (8,)):
        raise ImageRefused("8 bits a channel", f"{depth} bit{'s' if depth > 1 else ''} a channel")
    if colour == _PALETTE and b"PLTE" not in chunks:
        raise broken("PNG", "no palette")
    return Png(height, width, depth, colour, bool(interlace), header, chunks)


def _inflated(png: Png) -> bytes:
    """The filtered rows. Raises ImageRefused unless they are exactly the header's."""
    needed = _num_row_bytes(png)
    inflate = zlib.decompressobj()
    try:
        rows = inflate.decompress(png.chunks[b"IDAT"], needed + 1)
    except zlib.error as error:
        raise broken("PNG", str(error)) from None
    if len(rows) != needed:
        found = f"{len(rows)} bytes" if len(rows) < needed else "more"
        raise broken("PNG", f"{found} of rows, {needed} needed")
    if not inflate.eof:
        raise broken("PNG", "image data without its end")
    return rows


def _num_row_bytes(png: Png) -> int:
    """Bytes of all rows, each with the byte that names its filter."""
    bits = png.depth * _NUM_CHANNELS[png.colour]
    num_bytes = 0
    for column, row, columns, rows in _PASSES if png.interlaced else ((0, 0, 1, 1),):
        width, height = ceil((png.width - column) / columns), ceil((png.height - row) / rows)
        if width > 0 and height > 0:
            num_bytes += height * (1 + ceil(width * bits / 8))
    return num_bytes


def _open(png: Png, rows: bytes) -> Image.Image:
    """The image as Pillow reads it from the chunks of the pixels. Raises what Pillow raises."""
    chunks = {b"IHDR": png.header, **png.chunks, b"IDAT": zlib.compress(rows, 0), b"IEND": b""}
    if png.colour in _WITH_ALPHA:
        chunks.pop(b"tRNS", None)  # not allowed beside an alpha channel, and without a meaning
    order = [kind for kind in (*_OF_PIXELS, b"IEND") if kind in chunks]
    image = PngImageFile(BytesIO(SIGNATURE + b"".join(_chunk(kind, chunks[kind]) for kind in order)))
    image.load()
    return image


def _check_palette(png: Png, image: Image.Image) -> None:
    highest, num_colours = int(np.asarray(image).max()), len(png.chunks[b"PLTE"]) // 3
    if highest >= num_colours:
        raise broken("PNG", f"colour {highest} of a palette of {num_colours}")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))
