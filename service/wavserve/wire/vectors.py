"""Converts vectors and their limits to the contract's field names and to protobuf, and back.

A dimension without a limit is None in our data and in JSON, and NaN in protobuf, whose lists have no None.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast, get_args

from wavserve.core.errors import InvalidAnswer, shown
from wavserve.core.messages import Vector
from wavserve.core.spec import Hold, LimitsSpec
from wavserve.pb import wavserve_pb2 as pb


def vector_fields(vector: Vector) -> dict[str, Any]:
    """A vector's fields under the contract's names."""
    limits = vector.limits
    return {
        "names": list(vector.names),
        "units": list(vector.units),
        "statistics_digest": vector.statistics_digest,
        "limits": {
            "position_low": [None if each is None else each[0] for each in limits.position],
            "position_high": [None if each is None else each[1] for each in limits.position],
            "velocity": list(limits.velocity),
            "jerk": list(limits.jerk),
            "min_horizon": limits.min_horizon,
        },
        "hold": list(vector.hold),
    }


def vector_message(vector: Vector) -> pb.Vector:
    """A vector as protobuf."""
    same = vector_fields(vector)
    limits = {name: each if name == "min_horizon" else _with_nan(each) for name, each in same["limits"].items()}
    return pb.Vector(**same | {"limits": limits})


def vector_from(field: str, message: pb.Vector) -> Vector:
    """A vector from protobuf; limits that are not stated are none. Raises InvalidAnswer, naming `field`."""
    names, units = tuple(message.names), tuple(message.units)
    if len(names) != len(units):
        raise InvalidAnswer(f"{field}: expected a unit for each name, got {len(units)} of {len(names)}")
    limits = _limits(f"{field}.limits", message.limits, len(names)) if message.HasField("limits") else LimitsSpec()
    return Vector(names, units, message.statistics_digest, limits, _hold(f"{field}.hold", message.hold, len(names)))


def _hold(field: str, values: Sequence[str], dim: int) -> tuple[Hold, ...]:
    """A robot must not guess what it sends in a hold, so a value that this version does not know is an error."""
    if len(values) not in (0, dim):
        raise InvalidAnswer(f"{field}: expected 0 or {dim} texts, got {len(values)}")
    for value in values:
        if value not in get_args(Hold):
            raise InvalidAnswer(f"{field}: expected one of {', '.join(get_args(Hold))}, got {shown(value)}")
    return cast(tuple[Hold, ...], tuple(values))


def _limits(field: str, message: pb.Limits, dim: int) -> LimitsSpec:
    for name in ("position_low", "position_high", "velocity", "jerk"):
        if (num := len(getattr(message, name))) not in (0, dim):
            raise InvalidAnswer(f"{field}.{name}: expected 0 or {dim} numbers, got {num}")
    lows, highs = _with_none(message.position_low), _with_none(message.position_high)
    if [low is None for low in lows] != [high is None for high in highs]:
        raise InvalidAnswer(f"{field}.position_high: expected a number where position_low has one, got another pattern")
    return LimitsSpec(
        position=tuple(
            None if low is None or high is None else (low, high) for low, high in zip(lows, highs, strict=True)
        ),
        velocity=_with_none(message.velocity),
        jerk=_with_none(message.jerk),
        min_horizon=message.min_horizon,
    )


def _with_nan(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


def _with_none(values: Sequence[float]) -> tuple[float | None, ...]:
    return tuple(None if math.isnan(value) else value for value in values)
