"""The golden plan of a bundle: an observation and the actions that the policy must answer it with.

Its file lies beside the bundle's parts and is not part of the policy's digest. This module knows how it is stored, and
neither how it is made nor when it is checked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from wavserve.core.errors import BundleError
from wavserve.core.messages import MAX_INT64
from wavserve.core.normalise import accepted_range
from wavserve.core.spec import PolicySpec, VectorSpec
from wavserve.core.types import Array

FILE = "golden.safetensors"
_IMAGES = "images."


@dataclass(frozen=True, slots=True, eq=False)
class Golden:
    """The first observation of a session, planned in mode `off` with the policy's defaults."""

    images: Mapping[str, NDArray[np.uint8]]
    """RGB `[height, width, 3]` by camera"""
    state: Array
    """`[S]`, in the policy's units"""
    instruction: str
    seed: int
    actions: Array
    """`[T, A]`, in the policy's units"""

    @property
    def digest(self) -> str:
        """sha256 (hex) over names, types, shapes and content."""
        digest = hashlib.sha256()
        for name, tensor in sorted(_tensors(self).items()):
            digest.update(f"{name}\0{tensor.dtype}\0{tensor.shape}\0".encode() + tensor.tobytes())
        return digest.hexdigest()


def pack(golden: Golden) -> bytes:
    """A golden plan as safetensors."""
    return save(_tensors(golden))


def unpack(packed: bytes, spec: PolicySpec) -> Golden:
    """The golden plan of a policy. Raises BundleError for one that does not fit the policy."""
    try:
        tensors = load(packed)
    except SafetensorError as error:
        raise BundleError(f"{FILE}: expected a safetensors file: {error}") from error
    except KeyError as error:  # numpy has no such type
        raise BundleError(f"{FILE}: expected numbers of types that numpy has, got {error}") from error
    cameras = {_IMAGES + c.name: ("uint8", (c.height, c.width, 3)) for c in spec.cameras}
    numbers = {"state": ("float32", (spec.state.dim,)), "actions": ("float32", (spec.chunk, spec.action.vector.dim))}
    _check(tensors, {**cameras, **numbers, "instruction": ("uint8", None), "seed": ("int64", ())})
    _check_state(tensors["state"], spec.state)
    return Golden(
        images={camera.name: tensors[_IMAGES + camera.name] for camera in spec.cameras},
        state=tensors["state"],
        instruction=_instruction(tensors["instruction"].tobytes(), spec.max_instruction_bytes),
        seed=_seed(int(tensors["seed"])),
        actions=tensors["actions"],
    )


def read(folder: Path, spec: PolicySpec) -> Golden | None:
    """A bundle's golden plan; None where it has none. Raises BundleError for one that does not fit the policy."""
    try:
        return unpack((folder / FILE).read_bytes(), spec)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BundleError(f"{FILE}: expected a file that can be read: {error.strerror}") from error


def _tensors(golden: Golden) -> dict[str, NDArray[Any]]:
    images = {_IMAGES + camera: np.ascontiguousarray(image) for camera, image in golden.images.items()}
    return {
        **images,
        "state": golden.state,
        "instruction": np.frombuffer(golden.instruction.encode(), np.uint8),
        "seed": np.array(golden.seed, np.int64),
        "actions": golden.actions,
    }


def _check(tensors: Mapping[str, NDArray[Any]], expected: Mapping[str, tuple[str, tuple[int, ...] | None]]) -> None:
    if tensors.keys() != expected.keys():
        raise BundleError(f"{FILE}: expected {', '.join(sorted(expected))}, got {', '.join(sorted(tensors))}")
    for name, (dtype, shape) in expected.items():
        tensor = tensors[name]
        if tensor.dtype != dtype or (shape is not None and tensor.shape != shape):
            actual = f"{tensor.dtype} {list(tensor.shape)}"
            raise BundleError(f"{FILE}: {name}: expected {dtype} {'' if shape is None else list(shape)}, got {actual}")
        if dtype == "float32" and not np.isfinite(tensor).all():
            raise BundleError(f"{FILE}: {name}: expected finite numbers, got others")


def _check_state(state: Array, vector: VectorSpec) -> None:
    """The service plans from no state outside of this range."""
    low, high = accepted_range(vector.norm)
    for d in np.flatnonzero((state < low) | (state > high)):
        expected = f"{low[d]:g} to {high[d]:g} {vector.units[d]}"
        raise BundleError(f"{FILE}: state: {vector.names[d]}: expected {expected}, got {state[d]:g}")


def _instruction(raw: bytes, max_bytes: int) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise BundleError(f"{FILE}: instruction: expected UTF-8: {error}") from error
    if not text.strip() or len(raw) > max_bytes:
        raise BundleError(f"{FILE}: instruction: expected a text of 1 to {max_bytes} bytes, got {len(raw)} bytes")
    return text


def _seed(seed: int) -> int:
    if seed < 0:
        raise BundleError(f"{FILE}: seed: expected 0 to {MAX_INT64}, got {seed}")
    return seed
