"""openpi's encoding: msgpack, in which a numpy array is a map with binary keys.

It is read within limits of depth, elements, texts and dtypes, which are checked before anything is built: the work that
a message costs does not grow with what it claims. An array is a view of the message's bytes. Knows no key of an
observation.
"""

from __future__ import annotations

import math
from typing import Any

import msgpack
import numpy as np

from wavserve.core.errors import InvalidRequest, TooLarge, shown
from wavserve.wire import MAX_DEPTH, MAX_ELEMENTS, MAX_OUTLINE_BYTES, MAX_TEXT_BYTES

DTYPES = ("|u1", "<i4", "<i8", "<f4", "<f8")
"""The types of arrays and numpy numbers. Pixels are |u1."""
_MAX_KEYS = 64
_MAX_DIMENSIONS = 8
_ARRAY, _NUMBER, _DATA, _DTYPE, _SHAPE = b"__ndarray__", b"__npgeneric__", b"data", b"dtype", b"shape"
_MAPS = (*range(0x80, 0x90), 0xDE, 0xDF)
_LISTS = (*range(0x90, 0xA0), 0xDC, 0xDD)
_BINARY = (0xC4, 0xC5, 0xC6)
_EXTENSIONS = (0xC7, 0xC8, 0xC9, *range(0xD4, 0xD9))


def unpack(message: bytes, name: str) -> Any:
    """The value in a message, with arrays as read-only numpy arrays. `name`: of the whole message, in errors.

    Raises TooLarge and InvalidRequest.
    """
    reader = _Reader(message, name)
    value = reader.value("", 0)
    if reader.at != len(message):
        raise InvalidRequest(name, "one msgpack value", f"{len(message) - reader.at} more bytes")
    return value


def pack(value: object) -> bytes:
    """A message as openpi's client reads it. `value`: maps, lists, texts, numbers and arrays."""
    packed: bytes = msgpack.packb(value, default=_marked)
    return packed


def _marked(value: object) -> dict[bytes, object]:
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{type(value).__name__} has no form in openpi's protocol")
    return {_ARRAY: True, _DATA: value.tobytes(), _DTYPE: value.dtype.str, _SHAPE: value.shape}


class _Reader:
    """Reads one message, value by value."""

    def __init__(self, message: bytes, name: str) -> None:
        self._message = message
        self._name = name
        self._num_elements = 0
        self._num_outline_bytes = 0
        self._unpacker = msgpack.Unpacker(
            max_buffer_size=len(message) or 1,
            max_str_len=MAX_TEXT_BYTES,
            max_bin_len=len(message),
        )
        self._unpacker.feed(message)

    @property
    def at(self) -> int:
        """Bytes read."""
        at: int = self._unpacker.tell()
        return at

    def value(self, field: str, depth: int) -> Any:
        """The next value. `field`: its path; empty for the whole."""
        if depth > MAX_DEPTH:
            raise InvalidRequest(self._name, f"at most {MAX_DEPTH} lists and maps inside each other", "more")
        first = self._message[self.at] if self.at < len(self._message) else None
        if first in _MAPS:
            return self._map(field, depth)
        if first in _LISTS:
            num = self._read(self._unpacker.read_array_header)
            self._count(num)
            return [self.value(f"{field}[{index}]", depth + 1) for index in range(num)]
        if first in _EXTENSIONS:
            raise InvalidRequest(field or self._name, "no extension type of msgpack", f"type byte 0x{first:02x}")
        start = self.at
        scalar = self._read(self._unpacker.unpack)
        if first not in _BINARY:
            self._num_outline_bytes += self.at - start
            if self._num_outline_bytes > MAX_OUTLINE_BYTES:
                raise TooLarge(self._name, f"at most {MAX_OUTLINE_BYTES} bytes besides the arrays", "more")
        return scalar

    def _map(self, field: str, depth: int) -> Any:
        num = self._read(self._unpacker.read_map_header)
        if num > _MAX_KEYS:
            raise InvalidRequest(field or self._name, f"at most {_MAX_KEYS} keys in a map", f"{num} keys")
        self._count(num)
        tree: dict[Any, Any] = {}
        for _ in range(num):
            key = self.value(field, MAX_DEPTH)  # a key that is a list or a map fails: it has no room for its parts
            if not isinstance(key, str | bytes) or key in tree:
                raise InvalidRequest(field or self._name, "keys that are texts, each once", shown(key))
            tree[key] = self.value(f"{field}.{_shown_key(key)}".lstrip("."), depth + 1)
        if _ARRAY in tree:
            return _array(tree, field or self._name)
        if _NUMBER in tree:
            return _number(tree, field or self._name)
        if any(isinstance(key, bytes) for key in tree):
            raise InvalidRequest(field or self._name, "keys that are texts", "binary keys")
        return tree

    def _count(self, num: int) -> None:
        self._num_elements += num
        if self._num_elements > MAX_ELEMENTS:
            raise InvalidRequest(self._name, f"at most {MAX_ELEMENTS} list items and map entries", "more")

    def _read(self, read: Any) -> Any:
        try:
            return read()
        except msgpack.OutOfData:
            raise InvalidRequest(
                self._name, "a whole msgpack value", f"{len(self._message)} bytes that end early"
            ) from None
        except (ValueError, msgpack.UnpackException) as error:  # also of UTF-8
            raise InvalidRequest(self._name, "msgpack", f"{shown(str(error))} at byte {self.at}") from None


def _shown_key(key: str | bytes) -> str:
    return shown(key)[1:-1] if isinstance(key, str) else shown(key)


def _dtype(tree: dict[Any, Any], field: str) -> np.dtype[Any]:
    name = tree.get(_DTYPE)
    if not isinstance(name, str) or name not in DTYPES:
        raise InvalidRequest(f"{field}.dtype", f"one of {', '.join(DTYPES)}", shown(name))
    return np.dtype(name)


def _array(tree: dict[Any, Any], field: str) -> np.ndarray[Any, Any]:
    if tree.keys() != {_ARRAY, _DATA, _DTYPE, _SHAPE}:
        raise InvalidRequest(field, "an array with data, dtype and shape", f"{len(tree)} keys")
    dtype, data, shape = _dtype(tree, field), tree[_DATA], tree[_SHAPE]
    if not isinstance(shape, list) or len(shape) > _MAX_DIMENSIONS or not all(_is_size(side) for side in shape):
        raise InvalidRequest(f"{field}.shape", f"at most {_MAX_DIMENSIONS} sizes of 1 and more", shown(shape))
    num_bytes = math.prod(shape) * dtype.itemsize
    if not isinstance(data, bytes) or len(data) != num_bytes:
        actual = f"{len(data)} bytes" if isinstance(data, bytes) else type(data).__name__
        raise InvalidRequest(f"{field}.data", f"{num_bytes} bytes, as dtype and shape say", actual)
    return np.frombuffer(data, dtype).reshape(shape)


def _is_size(side: object) -> bool:
    return isinstance(side, int) and not isinstance(side, bool) and side >= 1


def _number(tree: dict[Any, Any], field: str) -> float | int:
    value = tree.get(_DATA)
    if tree.keys() != {_NUMBER, _DATA, _DTYPE} or not isinstance(value, int | float) or isinstance(value, bool):
        raise InvalidRequest(field, "a number with data and dtype", shown(value))
    _dtype(tree, field)
    return value
