"""Safetensors files of a checkpoint, one file or shards: finding, reading headers and tensors, writing.

This module knows names, shapes and bytes, but not the meaning of the tensors. It never unpickles.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from wavserve.core.errors import BundleError

FILE = "diffusion_pytorch_model.safetensors"
INDEX = FILE + ".index.json"
MAX_SHARD_BYTES = 1 << 30

Shapes = Mapping[str, tuple[int, ...]]


def files(path: Path) -> list[Path]:
    """The safetensors files of a checkpoint.

    `path` is a safetensors file, an index of shards, or a folder with one of the two. Raises BundleError when there is
    none, or when the index names a file that is not in its own folder.
    """
    if path.is_dir():
        entries = [path / name for name in (INDEX, FILE) if (path / name).is_file()]
        if len(entries) != 1:
            raise BundleError(f"weights {path}: expected either {FILE} or {INDEX}, found {len(entries)} of the two")
        path = entries[0]
    return _indexed(path) if path.suffix == ".json" else [path]


def headers(path: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of a checkpoint. The tensors themselves are not read.

    Raises BundleError when a file is unreadable, or when two shards hold the same name.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files(path):
        with _open(file) as reader:
            for name in reader.keys():  # noqa: SIM118  (not a dict)
                if name in shapes:
                    raise BundleError(f"weights {file}: {name} is in another shard too")
                shapes[name] = tuple(reader.get_slice(name).get_shape())
    return shapes


def tensors(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Tensor]]:
    """The tensors whose name is `wanted`, one at a time. They are views of the memory-mapped file.

    Raises BundleError as `files` does, and when a file is unreadable.
    """
    for file in files(path):
        with _open(file) as reader:
            for name in filter(wanted, reader.keys()):
                yield name, reader.get_tensor(name)


def write(
    folder: Path,
    sizes: Mapping[str, int],
    tensor: Callable[[str], Tensor],
    progress: Callable[[float], None] | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Writes `tensor(name)` for each name of `sizes` (in bytes) into `folder`, with one shard in memory at a time.

    Writes one file, or shards and an index if the file would be larger than `max_shard_bytes`. Calls `progress` with
    the fraction done.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards = _shards(sizes, max_shard_bytes)
    stem = FILE.removesuffix(".safetensors")
    names = (
        [FILE]
        if len(shards) == 1
        else [f"{stem}-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    )
    for i, (file, shard) in enumerate(zip(names, shards, strict=True)):
        save_file({name: tensor(name) for name in shard}, folder / file, metadata={"format": "pt"})
        if progress is not None:
            progress((i + 1) / len(shards))
    if len(shards) > 1:
        weight_map = {name: file for file, shard in zip(names, shards, strict=True) for name in shard}
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
        (folder / INDEX).write_text(json.dumps(index, indent=1, sort_keys=True) + "\n")


def _shards(sizes: Mapping[str, int], max_shard_bytes: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if shards[-1] and filled + size > max_shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def _indexed(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"weights {index}: expected an index with a weight_map, got {error!r}") from error
    for name in names:
        if Path(name).name != name or not (index.parent / name).is_file():
            raise BundleError(f"weights {index}: the index names {name!r}, which is not a file in its folder")
    return [index.parent / name for name in names]


def _open(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt")
    except (OSError, SafetensorError) as error:
        raise BundleError(f"weights {file}: expected a safetensors file, got {error}") from error
