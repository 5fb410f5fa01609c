"""JPEG: whole ones are decoded as another decoder does; damaged, partial, turned and costly ones are refused."""

from __future__ import annotations

import random
import re
import time

import cv2
import numpy as np
import pytest

from tests.edge.camera_files import COLOUR, EOI, JPEGS, encoded, exif, pixels_of, segment, with_segment
from wavserve.core.errors import InvalidRequest
from wavserve.edge.images import jpeg_structure

EXIF = b"Exif\0\0"
XMP = b"http://ns.adobe.com/xap/1.0/\0"
SOS, SOF = b"\xff\xda", re.compile(rb"\xff[\xc0-\xc2]")
PLAIN = JPEGS["4:2:0"]


def refusal(data: bytes, size: tuple[int, int] = (128, 128)) -> str:
    with pytest.raises(InvalidRequest) as caught:
        pixels_of(data, size=size)
    assert caught.value.field == "images.top.data"
    return f"{caught.value.expected}; {caught.value.actual}"


def is_refused(data: bytes, size: tuple[int, int] = (128, 128)) -> bool:
    try:
        pixels_of(data, size=size)
    except InvalidRequest:
        return True
    return False


def places(pattern: bytes, data: bytes) -> list[int]:
    return [found.start() for found in re.finditer(pattern, data)]


def frame_header(data: bytes) -> int:
    found = SOF.search(data)
    assert found is not None
    return found.start()


def changed(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


@pytest.mark.parametrize("kind", JPEGS)
def test_pixels_are_those_of_another_decoder(kind: str) -> None:
    other = cv2.imdecode(np.frombuffer(JPEGS[kind], np.uint8), cv2.IMREAD_COLOR)
    assert other is not None
    assert np.abs(pixels_of(JPEGS[kind]).astype(int) - other[..., ::-1]).max() <= 2


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("end", [b"", EOI], ids=["cut", "cut and closed"])
def test_a_cut_image_is_refused_wherever_it_is_cut(kind: str, end: bytes) -> None:
    data = JPEGS[kind]
    answered = [at for at in range(3, len(data) - 2, 7) if not is_refused(data[:at] + end)]
    assert answered == []


@pytest.mark.parametrize("kind", JPEGS)
def test_many_lost_bytes_are_noticed_wherever_they_are(kind: str) -> None:
    data = JPEGS[kind]
    start = data.index(SOS) + 30
    answered = [at for at in range(start, len(data) - 800, 97) if not is_refused(data[:at] + data[at + 800 :])]
    assert answered == []


@pytest.mark.parametrize("kind", ["restart", "short restart", "progressive restart"])
def test_lost_restart_segments_are_noticed(kind: str) -> None:
    """Eight lost segments leave the markers' numbers in order, so that libjpeg alone resumes in the wrong place."""
    data = JPEGS[kind]
    markers = places(rb"\xff[\xd0-\xd7]", data)
    for lost in (1, 2, 5, 8):
        answered = [a for a, b in zip(markers, markers[lost:], strict=False) if not is_refused(data[:a] + data[b:])]
        assert answered == []


@pytest.mark.parametrize("kind", JPEGS)
def test_a_header_that_states_more_or_fewer_rows_is_refused(kind: str) -> None:
    data, at = JPEGS[kind], frame_header(JPEGS[kind]) + 5
    for height in (8, 64, 112, 136, 144, 200, 1000):
        assert refusal(changed(data, at, height.to_bytes(2, "big")), (height, 128)).startswith("a complete JPEG"), (
            height
        )


@pytest.mark.parametrize("kind", ["progressive", "gray progressive", "progressive restart"])
def test_a_progressive_image_without_all_scans_is_refused(kind: str) -> None:
    data = JPEGS[kind]
    scans = places(SOS, data)
    assert len(scans) > 5
    for number, at in enumerate(scans[1:], start=1):
        assert refusal(data[:at] + EOI) == f"a complete JPEG; broken data: not all scans, {number} found"


@pytest.mark.parametrize("extra", [bytes(1000), b"\xff" * 99, PLAIN, b"camera"], ids=["zeros", "0xff", "JPEG", "text"])
def test_bytes_after_the_end_are_no_damage(extra: bytes) -> None:
    assert (pixels_of(PLAIN + extra) == pixels_of(PLAIN)).all()


@pytest.mark.parametrize("num_zeros", [1, 3, 16, 1000])
@pytest.mark.parametrize("kind", JPEGS)
def test_zeros_between_the_last_scan_and_the_end_are_no_damage(kind: str, num_zeros: int) -> None:
    padded = JPEGS[kind][:-2] + bytes(num_zeros) + EOI
    assert (pixels_of(padded) == pixels_of(JPEGS[kind])).all()


def test_other_bytes_between_the_last_scan_and_the_end_may_be_rows() -> None:
    assert "extraneous bytes" in refusal(PLAIN[:-2] + b"\x5a" * 100 + EOI)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["B", "H", "I"])
@pytest.mark.parametrize("before", [b"\xff\xe0", b"\xff\xdb", SOS, EOI], ids=["first", "tables", "scan", "end"])
def test_a_turned_image_is_refused_wherever_its_exif_is(order: str, kind: str, before: bytes) -> None:
    for turn in (0, 2, 3, 4, 5, 6, 7, 8):
        data = with_segment(PLAIN, segment(0xE1, EXIF + exif(turn, order, kind)), before)
        assert refusal(data) == f"an upright image, orientation 1; EXIF orientation {turn}"
    upright = with_segment(PLAIN, segment(0xE1, EXIF + exif(1, order, kind)), before)
    assert (pixels_of(upright) == pixels_of(PLAIN)).all()


def test_the_second_exif_counts_as_well() -> None:
    both = segment(0xE1, EXIF + exif(1)) + segment(0xE1, EXIF + exif(3))
    assert refusal(with_segment(PLAIN, both, b"\xff\xdb")).endswith("EXIF orientation 3")


@pytest.mark.parametrize(
    "text",
    [
        b'tiff:Orientation="6"',
        b"<tiff:Orientation> 6</tiff:Orientation>",
        b"<x xmlns:t='http://ns.adobe.com/tiff/1.0/' t:Orientation = '6'/>",
        b"<Orientation xmlns='http://ns.adobe.com/tiff/1.0/'>6</Orientation>",
        b'<tiff:Orientation rdf:datatype="integer">6</tiff:Orientation>',
        'tiff:Orientation="6"'.encode("utf-16-be"),
    ],
    ids=["attribute", "element", "prefix", "no prefix", "type", "UTF-16"],
)
def test_an_orientation_in_xmp_counts(text: bytes) -> None:
    assert refusal(with_segment(PLAIN, segment(0xE1, XMP + text), SOS)).endswith("XMP orientation 6")
    upright = with_segment(PLAIN, segment(0xE1, XMP + text.replace(b"6", b"1")), SOS)
    assert (pixels_of(upright) == pixels_of(PLAIN)).all()


@pytest.mark.parametrize("tiff", [b"", b"II", b"XX*\0\x08\0\0\0", exif(1)[:20], b"MM\0*\xff\xff\xff\xff"])
def test_exif_that_cannot_be_read_is_refused(tiff: bytes) -> None:
    data = with_segment(PLAIN, segment(0xE1, EXIF + tiff), SOS)
    assert refusal(data) == "an upright image, orientation 1; EXIF that cannot be read"


@pytest.mark.parametrize(
    ("place", "new", "reason"),
    [
        (1, b"\xc9", "a baseline or progressive JPEG; arithmetic coding"),
        (1, b"\xc3", "a baseline or progressive JPEG; lossless coding"),
        (1, b"\xc5", "a baseline or progressive JPEG; hierarchical coding"),
        (4, b"\x0c", "8 bits a channel; 12 bits a channel"),
        (5, b"\0\0", "a height in the header; 0, which a DNL marker would replace"),
        (9, b"\2", "an RGB or gray image; 2 channels"),
        (11, b"\0", "JPEG data; a broken JPEG header"),
    ],
)
def test_another_coding_depth_or_number_of_channels_is_refused(place: int, new: bytes, reason: str) -> None:
    assert refusal(changed(PLAIN, frame_header(PLAIN) + place, new)) == reason


def progressive_scans(num_scans: int) -> bytes:
    """A gray progressive JPEG without data, in which a scan has one coefficient."""
    frame = segment(0xC2, bytes([8, 0, 128, 0, 128, 1, 1, 0x11, 0]))
    scans = (segment(0xDA, bytes([1, 1, 0, k, k, 0])) + b"\x7f" for k in range(num_scans))
    return b"\xff\xd8" + frame + b"".join(scans) + EOI


def test_scans_are_counted_before_anything_is_decoded() -> None:
    assert refusal(progressive_scans(64)) == f"at most {jpeg_structure.MAX_SCANS} scans; more"
    assert "not all scans, 32 found" in refusal(progressive_scans(32))


def test_channels_may_have_scans_of_their_own_but_none_may_miss() -> None:
    frame = segment(0xC0, bytes([8, 0, 8, 0, 8, 3, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0]))
    scans = [segment(0xDA, bytes([1, channel, 0, 0, 63, 0])) + b"\x7f" for channel in (1, 2, 3)]
    head = b"\xff\xd8" + frame
    assert jpeg_structure.read(head + b"".join(scans) + EOI).height == 8
    assert refusal(head + b"".join(scans[:2]) + EOI).endswith("not all scans, 2 found")
    assert refusal(head + b"".join([*scans, scans[0]]) + EOI).endswith("does not continue the ones before it")


NUM_BYTES = 15_000_000
HEAD = PLAIN[: PLAIN.index(SOS)]


@pytest.mark.parametrize(
    "data",
    [
        HEAD + segment(0xFE, b"") * (NUM_BYTES // 4),
        HEAD + b"\xff" * NUM_BYTES,
        HEAD + segment(0xDD, b"\0\1") + PLAIN[len(HEAD) : len(HEAD) + 14] + b"\xff\xd0" * (NUM_BYTES // 2) + EOI,
        HEAD + PLAIN[len(HEAD) : len(HEAD) + 14] + b"\xff\x00" * (NUM_BYTES // 2),
        HEAD + PLAIN[len(HEAD) : len(HEAD) + 14] + b"\xff" * NUM_BYTES,
        HEAD + segment(0xE1, EXIF + exif(1) + bytes(60_000)) * (NUM_BYTES // 60_100),
    ],
    ids=["segments", "fill", "restarts", "stuffing", "0xff", "EXIF"],
)
def test_headers_are_read_in_time_proportional_to_their_bytes(data: bytes) -> None:
    """A loop over each byte took more than 5 s."""
    began = time.monotonic()
    refusal(data)
    assert time.monotonic() - began < 5


def test_what_is_damaged_is_refused_or_has_the_headers_size() -> None:
    """Whatever is changed, no other error escapes."""
    choose = random.Random(5)
    for data in JPEGS.values():
        for _ in range(60):
            damaged = bytearray(data)
            for _ in range(choose.randint(1, 4)):
                damaged[choose.randrange(len(data))] = choose.randrange(256)
            is_refused(bytes(damaged))


def test_a_large_image_of_one_colour_is_decoded() -> None:
    flat = np.full((1080, 1920, 3), 90, np.uint8)
    assert np.abs(pixels_of(encoded(flat), size=(1080, 1920)).astype(int) - 90).max() <= 2


def test_the_order_of_channels_is_red_green_blue() -> None:
    red = np.zeros_like(COLOUR)
    red[..., 0] = 200
    assert pixels_of(encoded(red)).mean(axis=(0, 1)).round().tolist() == pytest.approx([200, 0, 0], abs=2)
