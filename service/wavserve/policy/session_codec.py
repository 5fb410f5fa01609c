"""A session as bytes, for a store outside the process.

A record is typed and versioned, and has a checksum. Its fields are MessagePack, checked against the types of `Session`
when it is read; its arrays are raw bytes. Knows no store.
"""

from __future__ import annotations

import zlib
from typing import Any

import msgspec
import numpy as np

from wavserve.policy.sessions import Session

VERSION = 1
"""Rises when a type inside a session changes: a record of another version is refused."""
_MAGIC = b"WAVS"
_CHECKSUM_BYTES = 4
_HEADER_BYTES = len(_MAGIC) + 1 + _CHECKSUM_BYTES
_DTYPES = ("<f4", "<f8", "<i4", "<i8")


class UnreadableRecord(ValueError):
    """Bytes that are no session of this version. The text says why."""


def encode(session: Session) -> bytes:
    """The record of a session. It is not compressed: that saves 8 %, and takes longer than the call to Redis."""
    body = _ENCODER.encode(session)
    return _MAGIC + bytes([VERSION]) + _checksum(body) + body


def decode(record: bytes) -> Session:
    """The session of a record. Raises UnreadableRecord."""
    if len(record) < _HEADER_BYTES or not record.startswith(_MAGIC):
        raise UnreadableRecord("it does not begin like a session's record")
    if (version := record[len(_MAGIC)]) != VERSION:
        raise UnreadableRecord(f"expected version {VERSION}, got {version}")
    body = memoryview(record)[_HEADER_BYTES:]
    if _checksum(body) != record[_HEADER_BYTES - _CHECKSUM_BYTES : _HEADER_BYTES]:
        raise UnreadableRecord("its checksum does not match its content")
    try:
        return _DECODER.decode(body)
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        raise UnreadableRecord(str(error)) from error


def _checksum(body: bytes | memoryview) -> bytes:
    return zlib.crc32(body).to_bytes(_CHECKSUM_BYTES, "big")


def _array_to_parts(value: object) -> tuple[str, tuple[int, ...], memoryview]:
    if not isinstance(value, np.ndarray) or value.dtype.str not in _DTYPES:
        raise TypeError(f"a session has no {type(value).__name__} {getattr(value, 'dtype', '')}")
    return value.dtype.str, value.shape, np.ascontiguousarray(value).reshape(-1).view(np.uint8).data


def _array_of_parts(_: type, parts: Any) -> np.ndarray[Any, Any]:
    """Read-only. Raises ValueError and TypeError when the parts do not fit each other."""
    dtype, shape, data = parts
    if dtype not in _DTYPES:
        raise ValueError(f"expected a dtype of {', '.join(_DTYPES)}, got {dtype!r}")
    if any(length < 0 for length in shape):  # numpy would find a length for it
        raise ValueError(f"expected lengths from 0, got {shape}")
    return np.frombuffer(data, dtype).reshape(shape)


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_array_to_parts)
_DECODER = msgspec.msgpack.Decoder(Session, dec_hook=_array_of_parts)
