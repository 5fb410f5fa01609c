"""Lines of JSON: in order, off the caller's thread, bounded, and lost without harm when nobody reads."""

from __future__ import annotations

import io
import json
import logging
import os
import threading
from contextlib import suppress

import pytest

from wavserve.system.json_lines import LineWriter


def test_lines_are_written_in_order_and_all_before_the_end() -> None:
    stream, lost = io.StringIO(), []
    writer = LineWriter(stream, lambda: lost.append(1))
    for number in range(100):
        writer.put({"number": number, "text": "a\nb"})
    writer.close()
    assert [json.loads(line)["number"] for line in stream.getvalue().splitlines()] == list(range(100))
    assert not lost


def test_lines_beyond_the_bound_are_dropped_while_the_reader_sleeps() -> None:
    """The pipe is never read, so the writing thread stands still in a write."""
    read, write = os.pipe()
    lost: list[int] = []
    dropped = threading.Event()
    stream = os.fdopen(write, "w")
    writer = LineWriter(stream, lambda: (lost.append(1), dropped.set()), max_lines=8)
    for _ in range(3000):
        writer.put({"text": "x" * 1000})
    assert dropped.is_set()
    assert len(lost) < 3000
    os.close(read)  # ends the write that stands still
    writer.close()
    with suppress(BrokenPipeError):  # what was written last still waits in the stream
        stream.close()


def test_a_reader_that_is_gone_is_told_once_and_its_lines_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    read, write = os.pipe()
    os.close(read)
    lost: list[int] = []
    stream = os.fdopen(write, "w")
    writer = LineWriter(stream, lambda: lost.append(1))
    for number in range(5):
        writer.put({"number": number})
    writer.close()
    with suppress(BrokenPipeError):
        stream.close()
    assert len(lost) == 5
    assert len(caplog.records) == 1
