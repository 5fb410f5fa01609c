"""Slabs of shared memory under /dev/shm: one process creates a slab, and others map it.

A slab is named `PREFIX-EPOCH`. Its owner holds a lock on it. The kernel releases the lock when the owner's process
exits, whatever the cause. `clean` removes slabs without a lock. This module knows files and no features.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import secrets
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from wavserve.core.errors import BackendError, SettingsError

SHM = Path("/dev/shm")
HEADER = 4096
"""Bytes before the content. They hold a length, and JSON that describes the content."""
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Slab:
    """A mapped slab. `memory` holds the header and `size` bytes of content from `HEADER` on."""

    path: Path
    epoch: int
    memory: mmap.mmap
    facts: Mapping[str, Any]
    lock: FileIO | None
    """the owner's open file, which holds the lock; None in other processes"""

    def close(self) -> None:
        """Removes the file if this process owns it. Mappings of the file stay valid until they are dropped."""
        if self.lock is not None:
            self.path.unlink(missing_ok=True)
            self.lock.close()


def create(prefix: str, size: int, facts: Mapping[str, Any], folder: Path = SHM) -> Slab:
    """Creates a slab of `size` zero bytes with every page allocated; `facts` describe its content to readers.

    Other processes see it only when it is complete. Raises SettingsError when there is no room.
    """
    clean(prefix, folder)
    free, needed = free_bytes(folder), HEADER + size
    if needed > free:
        raise SettingsError(
            f"arena.num_slots: expected a feature arena of at most {free / 1e6:.0f} MB, which is what is free in "
            f"{folder}, got {needed / 1e6:.0f} MB; use fewer slots, or more shared memory (containers: --shm-size)"
        )
    try:
        file = FileIO(os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600), "r+")
        fcntl.flock(file, fcntl.LOCK_EX)
        # access to a hole in the file would kill this process when memory is short
        os.posix_fallocate(file.fileno(), 0, needed)
        memory = mmap.mmap(file.fileno(), needed, flags=mmap.MAP_SHARED | _POPULATE)
        _write_header(memory, facts)
        path, epoch = _name(file.fileno(), prefix, folder)
    except OSError as error:
        raise SettingsError(f"arena.num_slots: cannot create a slab of {needed / 1e6:.0f} MB: {error}") from error
    return Slab(path, epoch, memory, facts, file)


def attach(prefix: str, epoch: int, folder: Path = SHM) -> Slab | None:
    """Maps the slab of that epoch; None when it no longer exists."""
    path = _path(folder, prefix, epoch)
    try:
        with path.open("r+b") as file:
            memory = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_SHARED | _POPULATE)
    except OSError:
        return None
    [length] = _LENGTH.unpack(memory[: _LENGTH.size])
    return Slab(path, epoch, memory, json.loads(memory[_LENGTH.size : _LENGTH.size + length]), None)


def clean(prefix: str, folder: Path = SHM) -> list[Path]:
    """Removes the slabs of this prefix whose owner has exited. Returns their paths."""
    return [path for path in folder.glob(f"{prefix}-{'[0-9a-f]' * 8}") if _remove_unowned(path)]


def free_bytes(folder: Path = SHM) -> int:
    """Bytes that may still be stored there: the file system's free space, or the available memory when that is less."""
    space = os.statvfs(folder)
    return min(space.f_bavail * space.f_frsize, _available_memory())


def _remove_unowned(path: Path) -> bool:
    """Removes one slab if its lock is free, which means that its owner has exited."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        path.unlink(missing_ok=True)
        return True
    finally:
        os.close(file)


def _write_header(memory: mmap.mmap, facts: Mapping[str, Any]) -> None:
    text = json.dumps(facts).encode()
    if _LENGTH.size + len(text) > HEADER:
        raise ValueError(f"slab header: expected at most {HEADER - _LENGTH.size} bytes, got {len(text)}")
    memory[: _LENGTH.size] = _LENGTH.pack(len(text))
    memory[_LENGTH.size : _LENGTH.size + len(text)] = text


def _name(file: int, prefix: str, folder: Path) -> tuple[Path, int]:
    """Gives the complete, locked file its name. The epoch is random: a repeated epoch would make old handles valid."""
    while True:
        epoch = 1 + secrets.randbelow((1 << 31) - 1)
        try:
            os.link(f"/proc/self/fd/{file}", _path(folder, prefix, epoch), src_dir_fd=file)  # linkat follows this link
            return _path(folder, prefix, epoch), epoch
        except FileExistsError:
            continue


def _path(folder: Path, prefix: str, epoch: int) -> Path:
    return folder / f"{prefix}-{epoch:08x}"


def _available_memory() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise BackendError("/proc/meminfo: expected MemAvailable")


_POPULATE: int = getattr(mmap, "MAP_POPULATE", 0)
