"""A robot's channel: its options, and its replacement while no server answers.

Every client uses these, whatever it sends. Knows no calls.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

from wavserve.core.address import ADDRESS, parse_address, without_login
from wavserve.core.channels import MAX_BACKOFF_S, RECONNECT, SCHEMES, Options, proxy_option
from wavserve.core.errors import ClientClosed, DeadlineExceeded, InvalidRequest, NotReady, WavserveError, shown
from wavserve.core.types import Clock

Channel = TypeVar("Channel")


def channel_options(target: str, max_message_bytes: int, proxy: bool) -> Options:
    """Options of a robot's channel. Raises InvalidRequest for a target that is no `host:port`."""
    check_target(target)
    return (
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        # By default gRPC shares one connection among all channels to a target; each robot needs its own.
        ("grpc.use_local_subchannel_pool", 1),
        # A ping every 10 s, with 5 s for its answer: the client detects a dead link within 15 s. The server closes no
        # connection because of pings.
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # One ping is under way at a time. gRPC sends some of its own, by default with a limit of a minute, and no more
        # than two without data. A server that stands still would then be found after a minute.
        ("grpc.http2.ping_timeout_ms", 15_000),
        ("grpc.http2.max_pings_without_data", 0),
        *RECONNECT,
        *proxy_option(target, proxy),
    )


class Link(Generic[Channel]):
    """The channel of a client. A channel on which nobody answers is replaced, at most once in MAX_BACKOFF_S.

    gRPC pauses up to two minutes between two look-ups of a name, and takes 15 s to detect a dead connection. A new
    channel looks up and connects at once. Calls under way keep the channel they began on. Any thread may use it.
    """

    def __init__(self, target: str, connect: Callable[[], Channel], clock: Clock = time.monotonic) -> None:
        self._target = target
        self._connect = connect
        self._clock = clock
        self._lock = threading.Lock()
        self._made: weakref.WeakSet[Channel] = weakref.WeakSet()
        """all channels that are in use, replaced ones as well"""
        self._closed = False
        self._open()

    def channel(self) -> Channel:
        """The channel for the next call. Raises ClientClosed."""
        self.check_open()
        return self._channel

    def check_open(self) -> None:
        """Raises ClientClosed after `close`."""
        if self._closed:
            raise ClientClosed(f"{self._target}: this client is closed; make another one")

    def failed(self, channel: Channel, error: WavserveError) -> None:
        """Notes that a call on the channel failed. Replaces the channel when no server sent the error."""
        if error.error_id is not None or not isinstance(error, NotReady | DeadlineExceeded):
            return
        with self._lock:
            is_current = channel is self._channel and not self._closed
            if is_current and self._clock() - self._made_at >= MAX_BACKOFF_S:
                self._open()

    def close(self) -> list[Channel]:
        """The channels, for the caller to close. No other call can begin."""
        with self._lock:
            self._closed = True
            return list(self._made)

    def _open(self) -> None:
        self._channel, self._made_at = self._connect(), self._clock()
        self._made.add(self._channel)


def check_target(target: str, field: str = "target") -> None:
    """Raises InvalidRequest unless the target is `host:port`, or has a scheme of gRPC's such as `dns:` or `unix:`.

    gRPC would take a port modulo 65,536, and 443 where none is given.
    """
    if target.partition(":")[0] in SCHEMES:
        return
    try:
        parse_address(target)
    except ValueError:
        raise InvalidRequest(field, ADDRESS, shown(without_login(target))) from None
