"""Reads the markers of a JPEG without decoding it: size, channels, orientation, scans and restart markers.

It refuses what a decoder would answer with a guess, in time proportional to the bytes: scans that are missing, lost
restart segments, another depth, a turned image. It limits scans, because each costs time for every pixel.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from math import ceil

import numpy as np

from wavserve.edge.images import orientation
from wavserve.edge.images.refusal import ImageRefused, broken

MAX_SCANS = 32
"""A progressive JPEG of a common encoder has 10."""
MAX_SEGMENTS = 1000

_SOI, _EOI, _SOS, _DRI, _APP1 = b"\xff\xd8", 0xD9, 0xDA, 0xDD, 0xE1
_RST = range(0xD0, 0xD8)
_HUFFMAN_FRAMES = {0xC0: "baseline", 0xC1: "extended", 0xC2: "progressive"}
_OTHER_FRAMES = {
    **dict.fromkeys((0xC3, 0xC7), "lossless coding"),
    **dict.fromkeys((0xC5, 0xC6, 0xCD, 0xCE), "hierarchical coding"),
    **dict.fromkeys((0xC9, 0xCA, 0xCB, 0xCF), "arithmetic coding"),
}
_CHANNELS = {2: "2 channels", 4: "4 channels (CMYK)"}
_FILL = re.compile(rb"\xff*")
_MARKER = re.compile(rb"\xff[\x01-\xfe]")
_END_OF_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # at any marker other than a restart marker
_WINDOW = 2**18  # a search holds the interpreter's lock: short searches let the event loop run in between
_NUM_COEFFICIENTS = 64


@dataclass(frozen=True, slots=True)
class Jpeg:
    """A JPEG whose structure is whole. `data` ends with the end marker; bytes after it are left out."""

    height: int
    width: int
    data: memoryview


@dataclass(slots=True)
class _Component:
    """One channel. `bits[k]`: bits of coefficient `k` that are still missing; None: no scan had it yet."""

    horizontal: int
    vertical: int
    bits: list[int | None] = field(default_factory=lambda: [None] * _NUM_COEFFICIENTS)


@dataclass(slots=True)
class _Frame:
    """What the headers say so far."""

    height: int = 0
    width: int = 0
    progressive: bool = False
    components: dict[int, _Component] = field(default_factory=dict)
    restart_interval: int = 0
    num_scans: int = 0


@dataclass(frozen=True, slots=True)
class _Segment:
    """One marker segment. `end`: where its body ends in the file; a scan's entropy-coded data follows."""

    marker: int
    body: bytes
    end: int


def read(data: bytes) -> Jpeg:
    """Reads the structure of a JPEG. Raises ImageRefused."""
    frame, pos = _Frame(), len(_SOI)
    for _ in range(MAX_SEGMENTS):
        marker, pos = _marker_at(data, pos)
        if marker == _EOI:
            _check_complete(frame)
            return Jpeg(frame.height, frame.width, memoryview(data)[:pos])
        segment = _segment(data, marker, pos)
        try:
            _note(frame, segment)
            pos = _end_of_scan(data, segment, frame) if marker == _SOS else segment.end
        except (struct.error, IndexError, KeyError):
            raise ImageRefused("JPEG data", "a broken JPEG header") from None
    raise ImageRefused(f"at most {MAX_SEGMENTS} segments", "more")


def _marker_at(data: bytes, pos: int) -> tuple[int, int]:
    """The marker at `pos` and where it ends. Any number of 0xff may fill the space before it."""
    filled = _FILL.match(data, pos)
    after = filled.end() if filled else pos
    if after >= len(data):
        raise broken("JPEG", "no end marker")
    if after == pos:
        raise broken("JPEG", "bytes that belong to no segment")
    return data[after], after + 1


def _segment(data: bytes, marker: int, pos: int) -> _Segment:
    if marker in _RST:
        raise broken("JPEG", "a restart marker outside a scan")
    length = int.from_bytes(data[pos : pos + 2], "big")
    if length < 2 or pos + length > len(data):
        raise broken("JPEG", "it ends within a segment")
    return _Segment(marker, data[pos + 2 : pos + length], pos + length)


def _note(frame: _Frame, segment: _Segment) -> None:
    """Notes what a segment says of the image."""
    body = segment.body
    if segment.marker in _HUFFMAN_FRAMES or segment.marker in _OTHER_FRAMES:
        _note_frame(frame, segment)
    elif segment.marker == _DRI:
        (frame.restart_interval,) = struct.unpack(">H", body)
    elif segment.marker == _APP1 and body.startswith(b"Exif\0"):
        orientation.check_exif(body[6:])
    elif segment.marker == _APP1 and body.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
        orientation.check_xmp(body)


def _note_frame(frame: _Frame, segment: _Segment) -> None:
    if frame.components:
        raise broken("JPEG", "two frame headers")
    depth, frame.height, frame.width, num_channels = struct.unpack_from(">BHHB", segment.body)
    if segment.marker not in _HUFFMAN_FRAMES:
        raise ImageRefused("a baseline or progressive JPEG", _OTHER_FRAMES[segment.marker])
    if depth != 8:
        raise ImageRefused("8 bits a channel", f"{depth} bits a channel")
    if num_channels not in (1, 3):
        raise ImageRefused("an RGB or gray image", _CHANNELS.get(num_channels, f"{num_channels} channels"))
    frame.progressive = _HUFFMAN_FRAMES[segment.marker] == "progressive"
    for channel in range(num_channels):
        number, sampling, _ = struct.unpack_from("3B", segment.body, 6 + 3 * channel)
        frame.components[number] = _Component(sampling >> 4, sampling & 15)
    if not frame.height:
        raise ImageRefused("a height in the header", "0, which a DNL marker would replace")
    factors = [factor for each in frame.components.values() for factor in (each.horizontal, each.vertical)]
    if len(frame.components) != num_channels or 0 in (frame.width, *factors):
        raise ImageRefused("JPEG data", "a broken JPEG header")


def _end_of_scan(data: bytes, segment: _Segment, frame: _Frame) -> int:
    """Where the entropy-coded data of a scan ends, once its header and its restart markers are checked."""
    frame.num_scans += 1
    if frame.num_scans > MAX_SCANS:
        raise ImageRefused(f"at most {MAX_SCANS} scans", "more")
    (num_channels,) = struct.unpack_from("B", segment.body)
    numbers = [segment.body[1 + 2 * index] for index in range(num_channels)]
    components = [frame.components[number] for number in numbers]
    first, last, accuracy = struct.unpack_from("3B", segment.body, 1 + 2 * num_channels)
    if not frame.progressive:
        first, last, accuracy = 0, _NUM_COEFFICIENTS - 1, 0
    if last >= _NUM_COEFFICIENTS:
        raise ImageRefused("JPEG data", "a broken JPEG header")
    for component in components:
        _note_scan(component, slice(first, last + 1), had=accuracy >> 4, left=accuracy & 15)
    interval = frame.restart_interval
    num_restarts = ceil(_num_units(frame, components) / interval) - 1 if interval else 0
    return _check_restarts(data, segment.end, num_restarts)


def _note_scan(component: _Component, coefficients: slice, had: int, left: int) -> None:
    """A scan brings coefficients to all but `left` of their bits. A refinement adds one bit: `had` were left before."""
    known = component.bits[coefficients]
    if (had and had != left + 1) or known.count(had or None) != len(known):
        raise broken("JPEG", "a scan that does not continue the ones before it")
    component.bits[coefficients] = [left] * len(known)


def _num_units(frame: _Frame, components: list[_Component]) -> int:
    """Number of units (MCUs) in a scan of these components."""
    horizontal = max(each.horizontal for each in frame.components.values())
    vertical = max(each.vertical for each in frame.components.values())
    if len(components) > 1:
        return ceil(frame.width / (8 * horizontal)) * ceil(frame.height / (8 * vertical))
    only = components[0]
    columns = ceil(ceil(frame.width * only.horizontal / horizontal) / 8)
    return columns * ceil(ceil(frame.height * only.vertical / vertical) / 8)


def _check_restarts(data: bytes, start: int, num_restarts: int) -> int:
    """Where the scan that begins at `start` ends. Raises ImageRefused unless it has these restart markers in order."""
    end = _next_marker(_MARKER, data, start)
    if not num_restarts and data[end + 1] not in _RST:
        return end
    end = _next_marker(_END_OF_SCAN, data, end)
    scan = np.frombuffer(data, np.uint8, end - start, start)
    places = np.flatnonzero((scan[:-1] == 0xFF) & (scan[1:] & 0xF8 == _RST[0]))
    if len(places) != num_restarts:
        raise broken("JPEG", f"{len(places)} restart markers in a scan, {num_restarts} needed")
    if np.any(scan[places + 1] & 7 != np.arange(num_restarts) % len(_RST)):
        raise broken("JPEG", "restart markers out of order")
    return end


def _next_marker(pattern: re.Pattern[bytes], data: bytes, start: int) -> int:
    """Where the next marker of a pattern begins, in entropy-coded data from `start` on."""
    for window in range(start, len(data), _WINDOW):
        if (found := pattern.search(data, window, window + _WINDOW + 1)) is not None:
            return found.start()
    raise broken("JPEG", "no end marker")


def _check_complete(frame: _Frame) -> None:
    if not frame.components:
        raise ImageRefused("JPEG data", "a broken JPEG header")
    if any(component.bits.count(0) != _NUM_COEFFICIENTS for component in frame.components.values()):
        raise broken("JPEG", f"not all scans, {frame.num_scans} found")
