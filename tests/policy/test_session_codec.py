"""A session's record: what comes out is what went in, and a record that is not whole is refused."""

from __future__ import annotations

import dataclasses
import typing
import zlib

import msgspec
import numpy as np
import pytest

from tests.planning.rig import MakeRig, RigOptions, example_request, example_spec
from wavserve.policy.codec import UnreadableRecord
from wavserve.policy.session_codec import VERSION, decode, encode
from wavserve.policy.sessions import Session


@pytest.fixture
async def planned(make_rig: MakeRig) -> Session:
    """A session with everything in it: memory, Gaussians, and the chunk of a plan."""
    rig = await make_rig(RigOptions())
    chunk = await rig.policy.plan(example_request(example_spec()))
    session = await rig.sessions.load(chunk.session_id)
    assert session is not None
    return session


def equal(one: object, other: object) -> bool:
    """Whether two values are equal in every bit, arrays included."""
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and one.dtype == other.dtype and one.tobytes() == other.tobytes()
    if dataclasses.is_dataclass(one):
        names = [field.name for field in dataclasses.fields(one)]
        return type(one) is type(other) and all(equal(getattr(one, n), getattr(other, n)) for n in names)
    if isinstance(one, tuple):
        return isinstance(other, tuple) and len(one) == len(other) and all(map(equal, one, other))
    return one == other


async def test_a_session_comes_back_as_it_was(planned: Session) -> None:
    session = planned
    assert session.memory is not None
    assert session.last is not None
    assert session.last.chunk is not None
    assert equal(decode(encode(session)), session)


async def test_every_byte_of_a_record_is_under_its_checksum(planned: Session) -> None:
    record = encode(planned)
    rng = np.random.default_rng(0)
    for position in {0, 4, 5, 8, 9, len(record) - 1, *rng.integers(0, len(record), 200).tolist()}:
        damaged = bytearray(record)
        damaged[position] ^= 1
        with pytest.raises(UnreadableRecord):
            decode(bytes(damaged))
    for length in (0, 3, 8, 9, len(record) // 2, len(record) - 1):
        with pytest.raises(UnreadableRecord):
            decode(record[:length])


@pytest.mark.parametrize(
    "array",
    [
        ["<f4", [3], b"\0" * 8],
        ["<f4", [-1], b"\0" * 8],
        ["|O", [1], b"\0" * 8],
        ["<f4", [2]],
        7,
        ["<f4", ["2"], b"12345678"],
    ],
)
def test_an_array_whose_parts_do_not_fit_is_refused(array: object) -> None:
    """The checksum is right: such a record was written by something else."""
    fields = msgspec.to_builtins(Session("id", "digest")) | {"memory": {"frames": array, "steps": 0}}
    body = msgspec.msgpack.encode(fields)
    record = encode(Session("id", "digest"))
    with pytest.raises(UnreadableRecord):
        decode(record[:5] + zlib.crc32(body).to_bytes(4, "big") + body)


def test_another_version_is_refused_by_name() -> None:
    record = bytearray(encode(Session("id", "digest")))
    record[4] = VERSION + 1
    with pytest.raises(UnreadableRecord, match=f"expected version {VERSION}, got {VERSION + 1}"):
        decode(bytes(record))


def shape_of(kind: object, seen: set[object]) -> list[str]:
    """The fields of a type and of the types in it."""
    lines: list[str] = []
    for argument in typing.get_args(kind):
        lines += shape_of(argument, seen)
    if dataclasses.is_dataclass(kind) and kind not in seen:
        seen.add(kind)
        hints = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            lines.append(f"{kind.__name__}.{field.name}: {field.type}")
            lines += shape_of(hints[field.name], seen)
    return lines


def test_the_version_rises_when_a_type_in_a_session_changes() -> None:
    """A gateway of another release must not misread a record. When this fails, raise VERSION and state the new sum."""
    lines = sorted(shape_of(Session, set()))
    assert len(lines) > 60
    assert (VERSION, zlib.crc32("\n".join(lines).encode())) == (2, 3699780163), "\n".join(lines)
