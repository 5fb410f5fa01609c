"""Prints how often damage within a JPEG's compressed data is noticed: `python -m tests.edge.damage_rates`."""

from __future__ import annotations

import random
import sys

from tests.edge.camera_files import JPEGS, pixels_of
from wavserve.core.errors import InvalidRequest

NUM_PLACES = 300
LOST_BYTES = (1, 2, 10, 50, 200)


def is_noticed(data: bytes) -> bool:
    try:
        pixels_of(data)
    except InvalidRequest:
        return True
    return False


def rates(data: bytes) -> list[str]:
    """Per cent noticed: of one changed byte, then of each number of lost bytes."""
    choose = random.Random(3)
    start = data.index(b"\xff\xda") + 20
    changed = sum(
        is_noticed(data[:at] + bytes([data[at] ^ choose.randrange(1, 256)]) + data[at + 1 :])
        for at in (choose.randrange(start, len(data) - 2) for _ in range(NUM_PLACES))
    )
    lost = [
        sum(
            is_noticed(data[:at] + data[at + count :])
            for at in choose.choices(range(start, len(data) - count), k=NUM_PLACES)
        )
        for count in LOST_BYTES
    ]
    return [f"{100 * count / NUM_PLACES:.0f} %" for count in (changed, *lost)]


if __name__ == "__main__":
    header = ["picture of 128x128", "bytes", "1 changed", *(f"{count} lost" for count in LOST_BYTES)]
    rows = [header, ["---"] * len(header)]
    rows += [[name, str(len(data)), *rates(data)] for name, data in JPEGS.items()]
    sys.stdout.write("".join(f"| {' | '.join(row)} |\n" for row in rows))
