"""Files that are written as a whole, and locks: what fails leaves neither a file nor a descriptor behind."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import FrameType

import pytest

from wavserve.core.files import lock, lock_in_turn, write_whole


class Interrupted(Exception):
    pass


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    """Else a full disk would stay full."""
    file = tmp_path / "file"
    file.mkdir()
    with pytest.raises(OSError, match="directory"):
        write_whole(file, b"content")
    assert [*tmp_path.iterdir()] == [file]


def test_a_wait_for_a_lock_that_is_interrupted_leaves_no_descriptor_open(tmp_path: Path) -> None:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    held = lock(tmp_path / "lock")
    assert held is not None
    assert lock(tmp_path / "lock") is None
    before = descriptors()
    handler = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(Interrupted):
            lock_in_turn(tmp_path / "lock")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    assert descriptors() == before
    os.close(held)
    os.close(lock_in_turn(tmp_path / "lock"))
