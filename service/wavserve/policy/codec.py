"""Typed values as bytes, for a store outside the process.

A record is typed and versioned, and has a checksum. Its fields are MessagePack, checked against the types of the value
when it is read; its arrays are raw bytes. Knows no store, and no value by name.
"""

from __future__ import annotations

import zlib
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np

T = TypeVar("T")

_CHECKSUM_BYTES = 4
_DTYPES = ("<f4", "<f8", "<i4", "<i8")


class UnreadableRecord(ValueError):
    """Bytes that are no record of this kind and version. The text says why."""


class Codec(Generic[T]):
    """Records of one type. `magic` begins each of them; `version` rises when a type inside changes."""

    def __init__(self, kind: type[T], magic: bytes, version: int) -> None:
        self._name = kind.__name__
        self._magic = magic
        self._version = version
        self._header_bytes = len(magic) + 1 + _CHECKSUM_BYTES
        self._encoder = msgspec.msgpack.Encoder(enc_hook=_array_to_parts)
        self._decoder = msgspec.msgpack.Decoder(kind, dec_hook=_array_of_parts)

    def encode(self, value: T) -> bytes:
        """The record of a value."""
        body = self._encoder.encode(value)
        return self._magic + bytes([self._version]) + _checksum(body) + body

    def decode(self, record: bytes) -> T:
        """The value of a record; its arrays are read-only. Raises UnreadableRecord."""
        if len(record) < self._header_bytes or not record.startswith(self._magic):
            raise UnreadableRecord(f"it does not begin like a record of a {self._name}")
        if (version := record[len(self._magic)]) != self._version:
            raise UnreadableRecord(f"expected version {self._version}, got {version}")
        body = memoryview(record)[self._header_bytes :]
        if _checksum(body) != record[self._header_bytes - _CHECKSUM_BYTES : self._header_bytes]:
            raise UnreadableRecord("its checksum does not match its content")
        try:
            return self._decoder.decode(body)
        except (msgspec.MsgspecError, ValueError, TypeError) as error:
            raise UnreadableRecord(str(error)) from error


def _checksum(body: bytes | memoryview) -> bytes:
    return zlib.crc32(body).to_bytes(_CHECKSUM_BYTES, "big")


def _array_to_parts(value: object) -> tuple[str, tuple[int, ...], memoryview]:
    if not isinstance(value, np.ndarray) or value.dtype.str not in _DTYPES:
        raise TypeError(f"a record has no {type(value).__name__} {getattr(value, 'dtype', '')}")
    return value.dtype.str, value.shape, np.ascontiguousarray(value).reshape(-1).view(np.uint8).data


def _array_of_parts(_: type, parts: Any) -> np.ndarray[Any, Any]:
    """Read-only. Raises ValueError and TypeError when the parts do not fit each other."""
    dtype, shape, data = parts
    if dtype not in _DTYPES:
        raise ValueError(f"expected a dtype of {', '.join(_DTYPES)}, got {dtype!r}")
    if any(length < 0 for length in shape):  # numpy would find a length for it
        raise ValueError(f"expected lengths from 0, got {shape}")
    return np.frombuffer(data, dtype).reshape(shape)
