"""PNG: every kind of whole one is decoded as another decoder does; damage, lost rows and hidden turns are refused."""

from __future__ import annotations

import io
import random
import struct
import time
import zlib

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.edge.camera_files import COLOUR, GRAY, LIMITS, chunk, chunks_of, encoded, exif, pixels_of, rebuilt
from tests.edge.fakes import PICTURES
from wavserve.core.errors import InvalidRequest, TooLarge
from wavserve.edge.images import png, png_text

PLAIN = encoded(COLOUR, "PNG")
INTERLACED = (PICTURES / "png_interlaced.png").read_bytes()
FULL = np.full((128, 128), 255, np.uint8)
IHDR, IDAT = dict(chunks_of(PLAIN))[b"IHDR"], dict(chunks_of(PLAIN))[b"IDAT"]
ROWS = zlib.decompress(IDAT)


def palette(bits: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(COLOUR).quantize(2**bits).save(buffer, "PNG", bits=bits)
    return buffer.getvalue()


def with_chunk(kind: bytes, body: bytes, before: bytes = b"IDAT") -> bytes:
    return rebuilt(PLAIN, lambda each, old: [(kind, body), (each, old)] if each == before else [(each, old)])


def with_data(data: bytes, source: bytes = PLAIN) -> bytes:
    return rebuilt(source, lambda kind, old: [(kind, data if kind == b"IDAT" else old)])


def with_header(at: int, new: bytes) -> bytes:
    changed = IHDR[:at] + new + IHDR[at + len(new) :]
    return rebuilt(PLAIN, lambda kind, old: [(kind, changed if kind == b"IHDR" else old)])


def refusal(data: bytes, size: tuple[int, int] = (128, 128)) -> str:
    with pytest.raises(InvalidRequest) as caught:
        pixels_of(data, "png", size)
    assert caught.value.field == "images.top.data"
    return f"{caught.value.expected}; {caught.value.actual}"


def is_refused(data: bytes) -> bool:
    try:
        pixels_of(data, "png")
    except InvalidRequest:
        return True
    return False


WHOLE = {
    "RGB": PLAIN,
    "RGBA": encoded(np.dstack([COLOUR, FULL]), "PNG"),
    "gray": encoded(GRAY, "PNG"),
    "gray and alpha": encoded(np.dstack([GRAY, FULL]), "PNG"),
    "interlaced": INTERLACED,
    "many chunks": rebuilt(
        PLAIN,
        lambda kind, old: (
            [(kind, old[at : at + 99]) for at in range(0, len(old), 99)] if kind == b"IDAT" else [(kind, old)]
        ),
    ),
    "an empty last chunk": with_chunk(b"IDAT", b"", b"IEND"),
    "ancillary": with_chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(99))),
    "an absent colour is transparent": with_chunk(b"tRNS", struct.pack(">3H", 1, 2, 3)),
    **{f"palette of {bits} bits": palette(bits) for bits in (1, 2, 4, 8)},
}


@pytest.mark.parametrize("kind", WHOLE)
def test_pixels_are_those_of_another_decoder(kind: str) -> None:
    other = cv2.imdecode(np.frombuffer(WHOLE[kind], np.uint8), cv2.IMREAD_COLOR)
    assert other is not None
    assert (pixels_of(WHOLE[kind], "png") == other[..., ::-1]).all()


@pytest.mark.parametrize("data", [PLAIN, INTERLACED, WHOLE["palette of 4 bits"]], ids=["RGB", "interlaced", "palette"])
def test_damage_is_noticed_wherever_it_is(data: bytes) -> None:
    """A chunk's checksum covers its name and its body; the lengths are noticed because the next checksum is wrong."""
    choose = random.Random(4)
    for _ in range(400):
        at, count = choose.randrange(len(data)), choose.choice([1, 2, 10, 200])
        flipped = bytes([data[at] ^ 1 << choose.randrange(8)])
        assert is_refused(data[:at])
        assert is_refused(data[:at] + data[at + count :]), at
        assert is_refused(data[:at] + flipped + data[at + 1 :]), at


@pytest.mark.parametrize(
    ("rows", "actual"),
    [
        (ROWS[: 64 * 385], "24640 bytes of rows, 49280 needed"),
        (ROWS[:-1], "49279 bytes of rows, 49280 needed"),
        (ROWS + b"\0", "more of rows, 49280 needed"),
        (b"", "0 bytes of rows, 49280 needed"),
    ],
)
def test_the_image_data_has_exactly_the_rows(rows: bytes, actual: str) -> None:
    assert refusal(with_data(zlib.compress(rows))) == f"a complete PNG; broken data: {actual}"


def test_rows_are_counted_in_interlaced_images_too() -> None:
    rows = zlib.decompress(b"".join(body for kind, body in chunks_of(INTERLACED) if kind == b"IDAT"))
    assert "bytes of rows" in refusal(with_data(zlib.compress(rows[:-1]), INTERLACED))


def test_the_checksum_of_the_rows_counts() -> None:
    assert "incorrect data check" in refusal(with_data(IDAT[:-4] + b"abcd"))
    assert refusal(with_data(IDAT[:-4])).endswith("image data without its end")


@pytest.mark.parametrize("extra", [bytes(64), PLAIN, b"camera"], ids=["zeros", "PNG", "text"])
def test_bytes_after_the_end_are_no_damage(extra: bytes) -> None:
    assert (pixels_of(PLAIN + extra, "png") == COLOUR).all()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (with_header(8, b"\x10"), "8 bits a channel; 16 bits a channel"),
        (with_header(8, b"\x04\0"), "8 bits a channel; 4 bits a channel"),
        (with_header(8, b"\x01\0"), "8 bits a channel; 1 bit a channel"),
        (with_header(9, b"\x03"), "a complete PNG; broken data: no palette"),
        (with_header(9, b"\x05"), "PNG data; a broken PNG header"),
        (with_header(0, bytes(4)), "PNG data; a broken PNG header"),
        (with_header(12, b"\2"), "PNG data; a broken PNG header"),
        (with_chunk(b"CgBI", bytes(4)), "PNG chunks of the standard; chunk CgBI"),
        (with_chunk(b"acTL", struct.pack(">II", 2, 0)), "one image; an animation"),
        (with_chunk(b"fdAT", bytes(4) + IDAT, b"IEND"), "one image; an animation"),
        (with_chunk(b"IHDR", IHDR), "PNG data; a broken PNG header"),
        (with_chunk(b"PLTE", bytes(3), b"IEND"), "a complete PNG; broken data: chunk PLTE after the image data"),
    ],
)
def test_another_depth_or_meaning_is_refused(data: bytes, reason: str) -> None:
    assert refusal(data) == reason


def test_transparent_pixels_are_refused() -> None:
    for changed in (0, 128, 254):
        alpha = FULL.copy()
        alpha[5, 7] = changed
        assert refusal(encoded(np.dstack([COLOUR, alpha]), "PNG")) == "an opaque image; transparent pixels"
    assert refusal(with_chunk(b"tRNS", struct.pack(">3H", *COLOUR[3, 4]))) == "an opaque image; transparent pixels"
    four = WHOLE["palette of 2 bits"]
    clear = rebuilt(four, lambda kind, old: [(b"tRNS", b"\x80"), (kind, old)] if kind == b"IDAT" else [(kind, old)])
    assert refusal(clear) == "an opaque image; transparent pixels"


def test_a_colour_outside_the_palette_is_refused() -> None:
    short = rebuilt(WHOLE["palette of 8 bits"], lambda kind, old: [(kind, old[:300] if kind == b"PLTE" else old)])
    assert refusal(short) == "a complete PNG; broken data: colour 255 of a palette of 100"


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
def test_a_turned_image_is_refused(order: str, before: bytes) -> None:
    tiff = exif(6, order)
    hexed = b"\nexif\n%8d\n%s\n" % (len(tiff) + 6, (b"Exif\0\0" + tiff).hex().encode())
    stated = b'<x tiff:Orientation="6"/>'
    texts = {
        b"eXIf": tiff,
        b"tEXt": b"Raw profile type exif\0" + hexed,
        b"zTXt": b"Raw profile type APP1\0\0" + zlib.compress(hexed),
        b"iTXt": b"XML:com.adobe.xmp\0\0\0\0\0" + stated,
    }
    for kind, body in texts.items():
        assert refusal(with_chunk(kind, body, before)).endswith("orientation 6")
    unmarked = b"\nexif\n%8d\n%s\n" % (len(tiff), tiff.hex().encode())
    assert refusal(with_chunk(b"tEXt", b"Raw profile type exif\0" + unmarked, before)).endswith("EXIF orientation 6")
    assert refusal(with_chunk(b"tEXt", b"raw profile type exif\0" + hexed, before)).endswith("EXIF orientation 6")
    packed = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(stated)
    assert refusal(with_chunk(b"iTXt", packed, before)).endswith("XMP orientation 6")
    assert (pixels_of(with_chunk(b"eXIf", exif(1, order), before), "png") == COLOUR).all()
    assert (pixels_of(with_chunk(b"tEXt", b'Comment\0tiff:Orientation="6"', before), "png") == COLOUR).all()


def test_a_profile_that_inflates_is_refused() -> None:
    bomb = b"Raw profile type exif\0\0" + zlib.compress(b"0" * (png_text.MAX_TEXT_BYTES + 1))
    assert refusal(with_chunk(b"zTXt", bomb)) == f"at most {png_text.MAX_TEXT_BYTES} bytes of metadata in a text; more"


def bomb(num_bytes: int) -> bytes:
    deflate = zlib.compressobj()
    parts = [deflate.compress(bytes(2**20)) for _ in range(num_bytes >> 20)]
    return b"".join([*parts, deflate.flush()])


UPRIGHT = b"\nexif\n%8d\n%s" % (len(exif(1)), exif(1).hex().encode())


def repeated(kind: bytes, body: bytes, num_bytes: int = 15_000_000) -> bytes:
    one = chunk(kind, body)
    return PLAIN[:33] + one * (num_bytes // len(one)) + PLAIN[33:]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (repeated(b"tEXt", b""), f"at most {png.MAX_CHUNKS} chunks"),
        (
            repeated(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(UPRIGHT + b"\n" * 200_000)),
            f"at most {png.MAX_PROFILES}",
        ),
        (repeated(b"zTXt", b"XML:com.adobe.xmp\0\0" + zlib.compress(bytes(200_000))), f"at most {png.MAX_PROFILES}"),
        (with_data(bomb(2**30)), "a complete PNG; broken data: more of rows"),
    ],
    ids=["chunks", "hexadecimal", "profiles", "rows"],
)
def test_work_is_bounded_before_it_is_done(data: bytes, expected: str) -> None:
    began = time.monotonic()
    assert refusal(data).startswith(expected)
    assert time.monotonic() - began < 5


def test_texts_and_profiles_that_nobody_needs_are_not_inflated() -> None:
    data = with_chunk(b"iCCP", b"x\0\0" + bomb(2**26))
    assert (pixels_of(data, "png") == COLOUR).all()


def test_a_size_is_refused_before_rows_are_inflated() -> None:
    with pytest.raises(TooLarge, match=f"at most {LIMITS.max_image_pixels} pixels"):
        pixels_of(with_header(0, struct.pack(">II", 2**31 - 1, 2**31 - 1)), "png")


def random_chunk(choose: random.Random) -> tuple[bytes, bytes]:
    kinds = [b"PLTE", b"tRNS", b"eXIf", b"zTXt", b"iTXt", b"tEXt", b"acTL", b"IDAT", b"gAMA", b"iCCP", b"pHYs"]
    keyword = choose.choice([b"", b"XML:com.adobe.xmp\0", b"Raw profile type exif\0"])
    return choose.choice(kinds), keyword + choose.randbytes(choose.choice([0, 1, 3, 6, 40]))


@pytest.mark.parametrize("kind", WHOLE)
def test_chunks_of_any_content_are_answered_or_refused(kind: str) -> None:
    """The checksums are right, so that every reader gets what no encoder writes."""
    choose = random.Random(6)
    for _ in range(100):
        header = bytearray(dict(chunks_of(WHOLE[kind]))[b"IHDR"])
        header[choose.randrange(8, 13)] = choose.choice([0, 1, 2, 3, 4, 6, 8, 16])

        def changed(name: bytes, old: bytes, header: bytes = bytes(header)) -> list[tuple[bytes, bytes]]:
            extra = [random_chunk(choose)] if choose.random() < 0.3 else []
            return [*extra, (name, header if name == b"IHDR" and choose.random() < 0.3 else old)]

        is_refused(rebuilt(WHOLE[kind], changed))


def test_every_filter_and_size_is_undone() -> None:
    draw = np.random.default_rng(2)
    for height, width in ((1, 1), (1, 9), (7, 3), (33, 17)):
        image: NDArray[np.uint8] = draw.integers(0, 256, (height, width, 3), dtype=np.uint8)
        assert (pixels_of(encoded(image, "PNG"), "png", (height, width)) == image).all()
