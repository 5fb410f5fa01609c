"""openpi's encoding: the bytes of the real client, and messages that claim more than they have."""

from __future__ import annotations

import struct
import tracemalloc
from typing import Any

import msgpack
import numpy as np
import pytest

from tests.edge.websocket.golden import FLOAT32_1X2, NUMBER
from wavserve.core.errors import InvalidRequest, TooLarge
from wavserve.edge.websocket.packing import DTYPES, pack, unpack

ARRAY = {b"__ndarray__": True, b"data": bytes(8), b"dtype": "<f4", b"shape": (2,)}


def test_an_array_has_the_bytes_of_the_real_client() -> None:
    assert pack(np.array([1, 2], np.float32)) == FLOAT32_1X2
    assert unpack(FLOAT32_1X2, "message").tolist() == [1, 2]


def test_a_numpy_number_of_the_real_client_is_read() -> None:
    assert unpack(NUMBER, "message") == 0.5


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_and_plain_values_are_read_as_they_were_packed(dtype: str) -> None:
    array = np.arange(24, dtype=dtype).reshape(2, 3, 4)
    tree = {"images": {"a": array}, "state": [1, 2.5, None, True], "prompt": "größer", "n": np.ones((), dtype)}
    read = unpack(pack(tree), "message")
    np.testing.assert_array_equal(read["images"]["a"], array)
    assert (read["images"]["a"].dtype, read["images"]["a"].flags.writeable) == (np.dtype(dtype), False)
    assert (read["state"], read["prompt"], read["n"].shape) == (tree["state"], tree["prompt"], ())


def changed(**changes: Any) -> bytes:
    tree = {key: value for key, value in ARRAY.items() if changes.get(key.decode(), 0) is not None}
    packed: bytes = msgpack.packb(tree | {key.encode(): value for key, value in changes.items() if value is not None})
    return packed


BAD: dict[str, tuple[bytes, str]] = {
    "an empty message": (b"", "message"),
    "a cut map": (b"\x82\xa1a", "message"),
    "a cut array": (changed()[:-3], "message"),
    "two values": (b"\x01\x02", "message"),
    "the unused type": (b"\xc1", "message"),
    "a text that is no UTF-8": (b"\xa2\xff\xfe", "message"),
    "an extension": (msgpack.packb(msgpack.ExtType(5, b"x")), "message"),
    "a time": (b"\xd6\xff\x00\x00\x00\x00", "message"),
    "a number as key": (msgpack.packb({1: 2}), "message"),
    "a list as key": (b"\x81\x91\x01\x02", "message"),
    "a key twice": (b"\x82\xa1a\x01\xa1a\x02", "message"),
    "binary keys without a mark": (msgpack.packb({b"data": b""}), "message"),
    "dtype object": (changed(dtype="|O"), "message.dtype"),
    "dtype void": (changed(dtype="|V8"), "message.dtype"),
    "a large dtype": (changed(dtype="|S1000000000"), "message.dtype"),
    "big-endian": (changed(dtype=">f4"), "message.dtype"),
    "no dtype": (changed(dtype=None), "message"),
    "an unhashable dtype": (changed(dtype=["<f4"]), "message.dtype"),
    "no shape": (changed(shape=None), "message"),
    "a negative size": (changed(shape=[-2]), "message.shape"),
    "no size": (changed(shape=[0]), "message.shape"),
    "a size of an array without bytes": (changed(shape=[2**40, 0], data=b""), "message.shape"),
    "a fraction": (changed(shape=[2.0]), "message.shape"),
    "nine dimensions": (changed(shape=[1] * 9), "message.shape"),
    "a shape of text": (changed(shape="2"), "message.shape"),
    "too few bytes": (changed(shape=[3]), "message.data"),
    "a huge size": (changed(shape=[2**62, 2**62]), "message.data"),
    "data of text": (changed(data="xxxxxxxx"), "message.data"),
    "one key more": (changed(order="C"), "message"),
    "a number of text": (msgpack.packb({b"__npgeneric__": True, b"data": "x", b"dtype": "<f4"}), "message"),
    "a number of an unknown type": (
        msgpack.packb({b"__npgeneric__": True, b"data": 1.0, b"dtype": "<c8"}),
        "message.dtype",
    ),
    "65 keys": (msgpack.packb({str(n): n for n in range(65)}), "message"),
    "33 levels": (b"\x91" * 34 + b"\x01", "message"),
    "a deep text of lists": (b"\x91" * 100_000, "message"),
    "10,001 items": (msgpack.packb(list(range(10_001))), "message"),
    "items in many lists": (msgpack.packb([[0] * 200] * 60), "message"),
    "a claim of 4 billion items": (b"\xdd\xff\xff\xff\xff", "message"),
    "a claim of 4 billion entries": (b"\xdf\xff\xff\xff\xff", "message"),
    "a claim of 4 GB": (b"\xc6\xff\xff\xff\xff", "message"),
    "a long text": (msgpack.packb("x" * 65_537), "message"),
}


@pytest.mark.parametrize(("message", "field"), BAD.values(), ids=BAD)
def test_a_bad_message_is_refused_by_name(message: bytes, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        unpack(message, "message")
    assert (refused.value.field, "Traceback" in refused.value.message) == (field, False)


def test_much_text_besides_arrays_is_refused() -> None:
    with pytest.raises(TooLarge, match="besides the arrays"):
        unpack(msgpack.packb(["x" * 60_000] * 20), "message")


@pytest.mark.parametrize(
    "message",
    [b"\xdd" + struct.pack(">I", n) + b"\xdd" + struct.pack(">I", n) for n in (9_999, 2**31)],
    ids=["allowed", "forbidden"],
)
def test_a_claim_costs_no_memory(message: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequest):
            unpack(message, "message")
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()


def test_an_array_is_no_copy() -> None:
    message = pack({"a": np.zeros(4_000_000, np.uint8)})
    tracemalloc.start()
    try:
        unpack(message, "message")
        assert tracemalloc.get_traced_memory()[1] < 2.5 * 4_000_000  # the unpacker's buffer and the bytes
    finally:
        tracemalloc.stop()
