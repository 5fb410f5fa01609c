"""Follows the robots that are connected to gateways (`Watch`). It moves nothing and knows no terminal."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Self

import grpc

from wavserve.clients.calls import MAX_MESSAGE_BYTES, method_path, read_message, typed_error
from wavserve.clients.channels import channel_options
from wavserve.clients.gateways import Targets, parse_grpc_targets
from wavserve.core.control import RobotStatus
from wavserve.core.errors import ClientClosed, InvalidRequest, NotReady, WavserveError
from wavserve.pb import wavserve_pb2 as pb
from wavserve.wire.control_answers import watch_update_from

log = logging.getLogger(__name__)

RETRY_S = 1.0
"""Between two attempts to follow a gateway that is away."""
_STOPS = "the server stops"
Seen = list[RobotStatus] | WavserveError
"""All robots of a gateway, or why they are not known."""


class Onlooker:
    """One connection to a gateway (`host:port`, no TLS)."""

    def __init__(self, target: str, *, proxy: bool = False) -> None:
        """Connects with the first look. Raises InvalidRequest for a target that is no `host:port`."""
        options = channel_options(target, MAX_MESSAGE_BYTES, proxy)
        self._target = target
        self._channel = grpc.insecure_channel(target, options=options)
        self._closed = False

    def watch(self, interval_s: float, timeout_s: float | None = None) -> Iterator[list[RobotStatus]]:
        """All robots, now and after each interval, until the server stops. `timeout_s`: of the whole call.

        Raises the server's error, NotReady when no server answers, InvalidAnswer, and ClientClosed after `close`.
        """
        try:
            request = pb.WatchRequest(interval_s=interval_s).SerializeToString()
        except (TypeError, ValueError):
            raise InvalidRequest("interval_s", "a number of seconds", interval_s) from None
        try:
            yield from self._updates(request, timeout_s)
        except grpc.RpcError as error:
            self._check_open()
            raise self._typed(error) from None
        except ValueError:  # gRPC's own for a channel that another thread closed
            self._check_open()
            raise

    def close(self) -> None:
        """Ends every look."""
        self._closed = True
        self._channel.close()

    def _updates(self, request: bytes, timeout_s: float | None) -> Iterator[list[RobotStatus]]:
        invoke: grpc.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(method_path("Watch"))
        call = invoke(request, timeout=timeout_s)
        try:
            for raw in call:
                yield watch_update_from(read_message(pb.WatchUpdate(), raw))
        finally:
            call.cancel()

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosed(f"{self._target}: this onlooker is closed")

    def _typed(self, error: grpc.RpcError) -> WavserveError:
        assert isinstance(error, grpc.Call)  # gRPC's blocking API raises an object that is also the call
        return typed_error(self._target, error.code(), error.details(), error.trailing_metadata() or ())


class Onlookers:
    """Several gateways, each on a thread of its own: one that stands still hides no robot of another.

    A context manager.
    """

    def __init__(self, targets: Targets, *, proxy: bool = False) -> None:
        """Connects with the first look. Raises InvalidRequest for addresses that are none of gRPC."""
        self._onlookers = {each: Onlooker(each, proxy=proxy) for each in parse_grpc_targets(targets)}

    @property
    def targets(self) -> tuple[str, ...]:
        """The addresses, in their order."""
        return tuple(self._onlookers)

    def once(self, interval_s: float, timeout_s: float) -> dict[str, Seen]:
        """One look at each gateway, by address. `interval_s` is what the gateway is asked for."""
        with ThreadPoolExecutor(len(self._onlookers)) as pool:
            looks = [partial(each.watch, interval_s, timeout_s) for each in self._onlookers.values()]
            return dict(zip(self._onlookers, pool.map(_first, looks), strict=True))

    def follow(self, interval_s: float) -> Iterator[tuple[str, Seen]]:
        """What each gateway tells, with its address, for ever. An error that no other attempt mends is the last."""
        news: queue.Queue[tuple[str, Seen]] = queue.Queue()
        for target, onlooker in self._onlookers.items():
            look, tell = partial(onlooker.watch, interval_s), partial(_put, news, target)
            threading.Thread(target=follow, args=(look, tell), name="wavserve-watch", daemon=True).start()
        while True:
            yield news.get()

    def close(self) -> None:
        """Ends every look."""
        for each in self._onlookers.values():
            each.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def follow(
    look: Callable[[], Iterable[list[RobotStatus]]],
    tell: Callable[[Seen], None],
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Tells what each look tells. A gateway that is restarted is followed again; what no attempt mends ends it.

    An error that nobody expected is told too, as the last.
    """
    while True:
        try:
            for robots in look():
                tell(robots)
            tell(NotReady(_STOPS))
        except WavserveError as error:
            tell(error)
            if not error.retryable:
                return
        except Exception as error:
            log.exception("the robots of a gateway are not followed any more")
            tell(WavserveError(f"not followed any more: {type(error).__name__}: {error}"))
            return
        pause(RETRY_S)


def _put(news: queue.Queue[tuple[str, Seen]], target: str, seen: Seen) -> None:
    news.put((target, seen))


def _first(look: Callable[[], Iterator[list[RobotStatus]]]) -> Seen:
    try:
        return next(look(), NotReady(_STOPS))
    except WavserveError as error:
        return error
