"""A robot's client after an outage: it tries again often, and is served soon after the server is back."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.clients.robots import KINDS, AwaitingRobot, BlockingRobot
from tests.clients.servers import closing, name_server, resetting
from wavserve.clients.channels import Link, channel_options
from wavserve.core.channels import MAX_BACKOFF_S
from wavserve.core.errors import ClientClosed, DeadlineExceeded, NotReady, Overloaded, Unreachable, WavserveError

OUTAGE_S = 10.0
"""gRPC's own pauses are 1, 1.6, 2.6 and 4.1 s by then."""
SERVED_WITHIN_S = 3.5
Kind = type[BlockingRobot] | type[AwaitingRobot]


def served_after(call: Callable[[], object], pause_s: float = 0.1) -> float:
    """Seconds until a call succeeds; a bounded number of calls."""
    began = time.monotonic()
    for _ in range(600):
        try:
            call()
        except NotReady:
            time.sleep(pause_s)
        else:
            return time.monotonic() - began
    raise AssertionError("never served")


def for_each_kind(check: Callable[[Kind], None]) -> None:
    """Both kinds of client go through their outage at the same time."""
    with ThreadPoolExecutor(len(KINDS)) as pool:
        list(pool.map(check, KINDS))


def test_a_client_tries_again_often_and_is_served_soon_after_an_outage() -> None:
    for_each_kind(outlast_an_absent_server)


def outlast_an_absent_server(kind: Kind) -> None:
    with closing() as peer:
        robot = kind(peer.address)
        with pytest.raises(NotReady):
            robot.reset("s")
        time.sleep(OUTAGE_S)  # no calls: the channel itself tries to connect
        attempts = [*peer.connections, time.monotonic()]
    assert max(after - before for before, after in itertools.pairwise(attempts)) < MAX_BACKOFF_S + 0.5
    with resetting(int(peer.address.rpartition(":")[2])):
        assert served_after(lambda: robot.reset("s")) < SERVED_WITHIN_S
        robot.close()
        robot.end()


def test_a_name_that_resolves_again_is_found_soon() -> None:
    for_each_kind(outlast_a_missing_name)


def outlast_a_missing_name(kind: Kind) -> None:
    with name_server() as names, resetting() as server:
        robot = kind(f"dns://{names.authority}/robot.test:{server.rpartition(':')[2]}")
        back_at = time.monotonic() + OUTAGE_S
        while time.monotonic() < back_at:
            with pytest.raises(NotReady, match=r"robot\.test"):
                robot.reset("s")
            time.sleep(0.2)
        names.known = True
        assert served_after(lambda: robot.reset("s")) < SERVED_WITHIN_S
        robot.close()
        robot.end()


def test_an_attempt_to_connect_does_not_take_longer_than_the_longest_pause() -> None:
    """A lost packet costs one attempt. gRPC's own limit is 20 s."""
    options = dict(channel_options("robot:8001", 1, proxy=False))
    assert options["grpc.min_reconnect_backoff_ms"] <= MAX_BACKOFF_S * 1e3
    assert options["grpc.max_reconnect_backoff_ms"] * 1.2 <= MAX_BACKOFF_S * 1e3


class Channel:
    """Stands for a gRPC channel."""


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def with_id(error: WavserveError) -> WavserveError:
    error.error_id = "urn:uuid:1"
    return error


@pytest.mark.parametrize(
    ("error", "after_s", "replaced"),
    [
        (NotReady("refused"), 1.0, False),
        (NotReady("refused"), 2.0, True),
        (DeadlineExceeded("no answer"), 2.0, True),
        (with_id(NotReady("starting")), 2.0, False),
        (with_id(DeadlineExceeded("late")), 2.0, False),
        (Overloaded("full"), 2.0, False),
    ],
)
def test_a_channel_is_replaced_when_nobody_answers(error: WavserveError, after_s: float, replaced: bool) -> None:
    clock = Clock()
    link = Link("robot:8001", Channel, clock)
    first = link.channel()
    clock.now = after_s
    link.failed(first, error)
    assert (link.channel() is not first) == replaced
    current = link.channel()
    clock.now = 10.0
    if replaced:
        link.failed(first, error)  # a call that began before the replacement
        assert link.channel() is current
    assert set(link.close()) == {first, current}
    with pytest.raises(ClientClosed):
        link.channel()


def test_a_link_does_not_open_a_channel_after_its_end() -> None:
    clock = Clock()
    link = Link("robot:8001", Channel, clock)
    [channel] = link.close()
    clock.now = 10.0
    link.failed(channel, NotReady("refused"))
    assert link.close() == [channel]


@pytest.mark.parametrize(("scheme", "words"), [("", "Connection refused"), ("http://", "ConnectError")])
def test_a_port_nobody_listens_on_is_named(scheme: str, words: str) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        robot = BlockingRobot(f"{scheme}127.0.0.1:{reserved.getsockname()[1]}")
        with pytest.raises(Unreachable, match=words):
            robot.reset("s")
        robot.close()


def test_a_request_that_was_sent_may_have_been_served() -> None:
    with closing() as peer, BlockingRobot(f"http://{peer.address}") as robot:
        with pytest.raises(NotReady) as caught:
            robot.reset("s")
        assert not isinstance(caught.value, Unreachable)
