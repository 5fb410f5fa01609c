"""Real-time chunking from protobuf and to protobuf. Knows no policy: `core/rtc_options` checks the values."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from wavserve.core.errors import InvalidRequest, shown
from wavserve.core.rtc import RtcRequest
from wavserve.core.spec import PREFIX_SCHEDULES, RTC_MODES
from wavserve.pb import wavserve_pb2 as pb
from wavserve.wire import parts

_NUMBERS = ("max_guidance_weight", "execution_horizon")
_LEFT_OVER = "rtc.prev_chunk_left_over"


def rtc_from(message: pb.RealTimeChunking) -> RtcRequest:
    """What a request asks for. Raises InvalidRequest for unknown fields and for a left-over that is no matrix.

    An unknown mode or schedule becomes a text with its number, which the policy then refuses.
    """
    parts.refuse_unknown("rtc", message)
    parts.refuse_unknown(_LEFT_OVER, message.prev_chunk_left_over)
    mode = _name(pb.RealTimeChunking.Mode, message.mode, "mode")
    return RtcRequest(
        mode=cast(Any, mode and mode.lower()),
        prefix_attention_schedule=cast(
            Any, _name(pb.RealTimeChunking.Schedule, message.prefix_attention_schedule, "schedule")
        ),
        **{name: getattr(message, name) if message.HasField(name) else None for name in _NUMBERS},
        inference_delay=message.inference_delay,
        prev_chunk_left_over=_matrix(message.prev_chunk_left_over),
    )


def rtc_message(request: RtcRequest) -> pb.RealTimeChunking:
    """A request's wish as protobuf. Raises InvalidRequest for values outside the contract."""
    message = pb.RealTimeChunking(prev_chunk_left_over=_tensor(request.prev_chunk_left_over))
    if request.mode is not None:
        message.mode = _value(pb.RealTimeChunking.Mode, request.mode, RTC_MODES, "rtc.mode")
    if request.prefix_attention_schedule is not None:
        message.prefix_attention_schedule = _value(
            pb.RealTimeChunking.Schedule,
            request.prefix_attention_schedule,
            PREFIX_SCHEDULES,
            "rtc.prefix_attention_schedule",
        )
    for name in (*_NUMBERS, "inference_delay"):
        value = getattr(request, name)
        if value is not None:
            parts.assign(message, name, value, f"rtc.{name}")
    return message


def _name(enum: Any, number: int, what: str) -> str | None:
    """The name of an enum's number; None for 0, which means the policy's default."""
    if number == 0:
        return None
    return str(enum.Name(number)) if number in enum.values() else f"{what} {number}"


def _value(enum: Any, name: str, names: tuple[str, ...], field: str) -> Any:
    if name not in names:
        raise InvalidRequest(field, f"one of {', '.join(names)}", shown(name))
    return enum.Value(name.upper())


def _matrix(message: pb.Tensor) -> NDArray[np.float32]:
    """`[n, A]`; `[0, 0]` for an empty message."""
    shape = tuple(message.shape[:3])
    if not shape and not message.data:
        return np.zeros((0, 0), np.float32)
    if len(shape) != 2:
        raise InvalidRequest(f"{_LEFT_OVER}.shape", "two sizes, [n, action_dim]", f"{len(message.shape)} sizes")
    num_bytes = 4 * shape[0] * shape[1]
    if len(message.data) != num_bytes:
        raise InvalidRequest(f"{_LEFT_OVER}.data", f"{num_bytes} bytes of float32", f"{len(message.data)} bytes")
    return np.frombuffer(message.data, "<f4").reshape(shape).astype(np.float32, copy=False)


def _tensor(rows: NDArray[np.float32]) -> pb.Tensor | None:
    """None for no rows."""
    try:
        matrix = np.asarray(rows, "<f4")
    except (TypeError, ValueError):
        raise InvalidRequest(_LEFT_OVER, "numbers [n, action_dim]", shown(rows)) from None
    if matrix.size == 0:
        return None
    if matrix.ndim != 2:
        raise InvalidRequest(_LEFT_OVER, "numbers [n, action_dim]", f"{matrix.ndim} dimensions")
    return pb.Tensor(shape=matrix.shape, data=matrix.tobytes())
