"""The files of a policy bundle: reads JSON and safetensors headers, hashes files, creates a folder atomically.

Knows no spec and no torch. Every failure is a BundleError that names the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wavserve.core.errors import BundleError

PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})

_BLOCK = 1 << 20
_MAX_HEADER = 100 << 20  # the safetensors format's own limit


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor as a safetensors header declares it. `dtype` is the format's name (F32, BF16)."""

    dtype: str
    shape: tuple[int, ...]


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Names, dtypes and shapes of a safetensors file, from its header alone. Raises BundleError."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= min(_MAX_HEADER, path.stat().st_size):
                raise BundleError(f"{path}: expected a safetensors header, got a length of {length} bytes")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        return {name: TensorInfo(entry["dtype"], tuple(entry["shape"])) for name, entry in header.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{path}: expected a safetensors file: {error!r}") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises BundleError naming the file."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: expected a JSON file: {error}") from error
    if not isinstance(document, dict):
        raise BundleError(f"{path}: expected a JSON object, got {type(document).__name__}")
    return document


def files_below(folder: Path) -> list[Path]:
    """Every file below a folder, sorted by path. Raises BundleError when the folder does not exist."""
    if not folder.is_dir():
        raise BundleError(f"{folder}: expected a folder, got none")
    return sorted(path for path in folder.rglob("*") if path.is_file())


def refuse_pickles(folder: Path) -> None:
    """Raises BundleError when a file below `folder` has a suffix of a format that loads by unpickling."""
    for path in files_below(folder):
        if path.suffix in PICKLES:
            raise BundleError(f"{path}: expected safetensors only, got a {path.suffix} file")


def digest_files(folder: Path, paths: Iterable[Path]) -> str:
    """sha256 (hex) over name, length and bytes of each file, in the given order, read block by block."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """A new folder to fill. It is renamed to `folder` when the block succeeds and deleted when the block fails.

    A killed process leaves a `.partial` sibling behind, never an incomplete `folder`. Raises BundleError when `folder`
    exists.
    """
    if folder.exists():
        raise BundleError(f"{folder}: expected no such folder yet, got one")
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # left by a killed process with the same pid
    partial.mkdir(parents=True)
    try:
        yield partial
        _rename(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _rename(partial: Path, folder: Path) -> None:
    try:
        partial.rename(folder)
    except OSError as error:
        raise BundleError(f"{folder}: expected no such folder yet, got one that appeared meanwhile: {error}") from error
