"""Files that are written as a whole or not at all, and folders with one writer. Knows not what they hold."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def write_whole(file: Path, content: bytes) -> None:
    """Gives a file its name once its bytes are on the disk. Raises OSError."""
    temporary = file.with_suffix(".tmp")
    with temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(file)


def lock(file: Path) -> int | None:
    """The descriptor of a lock that ends with the process; None when another one has it. Raises OSError."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def lock_in_turn(file: Path) -> int:
    """As `lock`, after every process that has it. Raises OSError."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor
