"""Files that are written as a whole or not at all, and folders with one writer. Knows not what they hold."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def write_whole(file: Path, content: bytes) -> None:
    """Gives a file its name once its bytes are on the disk. Raises OSError, and then leaves nothing of it behind."""
    temporary = file.with_suffix(".tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def lock(file: Path) -> int | None:
    """The descriptor of a lock that ends with the process; None when another one has it. Raises OSError."""
    try:
        return _locked(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None


def lock_in_turn(file: Path) -> int:
    """As `lock`, after every process that has it. Raises OSError."""
    return _locked(file, fcntl.LOCK_EX)


def _locked(file: Path, operation: int) -> int:
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, operation)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
