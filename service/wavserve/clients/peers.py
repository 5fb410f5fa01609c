"""Single calls to several gateways: a call that one gateway does not serve goes to the next, within its time.

The gateways have one policy: it is compared before the first plan, and after every failure. Knows no call by name.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, TypeVar

from wavserve.clients import calls, http_calls
from wavserve.clients.calls import Call
from wavserve.clients.gateways import Round, Route, Targets, moves_on, parse_targets
from wavserve.clients.grpc_peer import AsyncGrpcPeer, GrpcPeer
from wavserve.clients.http_calls import HttpCall
from wavserve.clients.http_peer import AsyncHttpPeer
from wavserve.clients.loop_thread import LoopThread
from wavserve.core.address import is_url
from wavserve.core.closing import close_all
from wavserve.core.errors import NotReady, WavserveError
from wavserve.core.messages import ActionChunk
from wavserve.core.types import Clock

Answer = TypeVar("Answer")

COMPARE_S = 3.0
"""How long a gateway may take to say which policy it has."""


class Attempts:
    """One call on its way from gateway to gateway. Knows no network."""

    def __init__(
        self,
        route: Route,
        call: Call[Answer] | HttpCall[Answer],
        timeout_s: float | None,
        clock: Clock = time.monotonic,
    ) -> None:
        """`timeout_s`: of all attempts together; None: the call's own."""
        timeout_s = call.timeout_s if timeout_s is None else timeout_s
        self._round = Round(route)
        self._call, self._clock, self._began = call, clock, clock()
        self._timeout_s = math.inf if timeout_s is None else timeout_s
        self._deadline_s = math.inf if call.deadline_ms is None else call.deadline_ms / 1e3
        # A plan takes what it takes. Another call is short, so a gateway that stands still must not use up its time.
        self._is_short = call.timeout_s is not None and call.deadline_ms is None
        self.target = route.current
        """the gateway to ask"""

    @property
    def call(self) -> Any:
        """The call as it is sent now: its deadline counts from its receipt."""
        if self._call.deadline_ms is None:
            return self._call
        return replace(self._call, deadline_ms=max(1, self._call.deadline_ms - math.floor(1e3 * self._elapsed_s)))

    @property
    def compare_s(self) -> float:
        """How long the question for the gateway's policy may take."""
        left_s = self.left_s
        return COMPARE_S if left_s is None else min(left_s, COMPARE_S)

    @property
    def left_s(self) -> float | None:
        """How long the next attempt may take; None: no limit."""
        if self._timeout_s == math.inf:
            return None
        left_s = max(self._timeout_s - self._elapsed_s, 0.0)
        return left_s / self._round.num_left if self._is_short else left_s

    def failed(self, error: WavserveError, was_asked: bool = True) -> None:
        """The gateway did not serve. Raises the call's error when no other one may be asked, or none in time.

        `was_asked` as in `Round.failed`.
        """
        if not moves_on(error):
            raise error if self._is_short else self._round.refused(self.target, error)
        self._round.failed(self.target, error, was_asked)
        target = self._round.next()
        if target is None or self._elapsed_s >= min(self._timeout_s, self._deadline_s):
            raise self._round.verdict()
        self.target = target

    @property
    def _elapsed_s(self) -> float:
        return self._clock() - self._began


class Peers:
    """The gateways of a blocking client, for any number of threads."""

    def __init__(self, route: Route, peers: Mapping[str, Any], question: Call[Any]) -> None:
        """`peers`: by address. `question`: the call that asks for a gateway's policy."""
        self.route = route
        self._peers = peers
        self._question = question

    def call(self, call: Call[Answer], timeout_s: float | None) -> Answer:
        """One call. Raises the server's error, NotReady, DeadlineExceeded, InvalidAnswer, ClientClosed and
        ContractMismatch."""
        attempts = Attempts(self.route, call, timeout_s)
        while True:
            target, was_asked = attempts.target, False
            peer = self._peers[target]
            try:
                if self.route.must_compare(target):
                    self.route.compare(target, peer.call(self._question, attempts.compare_s).digest)
                was_asked = True
                answer: Answer = peer.call(attempts.call, attempts.left_s)
                if isinstance(answer, ActionChunk):
                    self.route.compare(target, answer.receipt.policy_digest)
            except WavserveError as error:
                attempts.failed(error, was_asked)
            else:
                return answer

    def close(self) -> None:
        """Ends the calls under way, and refuses later ones, with ClientClosed.

        Every peer is closed, also when another one cannot be. Raises the error of one.
        """
        with ExitStack() as stack:
            for peer in self._peers.values():
                stack.callback(peer.close)


class AsyncPeers:
    """The same for an event loop."""

    def __init__(self, route: Route, peers: Mapping[str, Any], question: Call[Any] | HttpCall[Any]) -> None:
        """As `Peers`."""
        self.route = route
        self._peers = peers
        self._question = question
        self._doubts: dict[str, asyncio.Task[bool]] = {}  # whether a gateway still answers, while it is asked

    async def call(self, call: Call[Answer] | HttpCall[Answer], timeout_s: float | None) -> Answer:
        """As `Peers.call`."""
        attempts = Attempts(self.route, call, timeout_s)
        while True:
            target, was_asked = attempts.target, False
            peer = self._peers[target]
            try:
                await self._still_answers(target, attempts.compare_s)
                if self.route.must_compare(target):
                    self.route.compare(target, (await peer.call(self._question, attempts.compare_s)).digest)
                was_asked = True
                answer: Answer = await peer.call(attempts.call, attempts.left_s)
                if isinstance(answer, ActionChunk):
                    self.route.compare(target, answer.receipt.policy_digest)
            except WavserveError as error:
                attempts.failed(error, was_asked)
            except asyncio.CancelledError:
                self._doubt(target)
                raise
            else:
                return answer

    async def close(self) -> None:
        """As `Peers.close`."""
        await close_all(*(peer.close() for peer in self._peers.values()), *self._doubts.values())

    def _doubt(self, target: str) -> None:
        """Asks whether a gateway still answers, because a program gave a call to it up.

        The program may do so before anything else finds that the gateway stands still, and again each time.
        """
        if len(self.route) > 1 and target not in self._doubts:
            self._doubts[target] = asyncio.create_task(self._ask_again(target))

    async def _ask_again(self, target: str) -> bool:
        """Whether a gateway answers. If not, the next call asks another one first."""
        try:
            await self._peers[target].call(self._question, COMPARE_S)
        except WavserveError as error:
            if moves_on(error):
                self.route.failed(target)
                return False
        finally:
            del self._doubts[target]
        return True

    async def _still_answers(self, target: str, within_s: float) -> None:
        """Waits until a gateway in doubt has answered. Raises NotReady when it does not."""
        if (doubt := self._doubts.get(target)) is None:
            return
        done, _ = await asyncio.wait((doubt,), timeout=within_s)
        if not done or not doubt.result():
            raise NotReady(f"{target}: no answer since a call to it was given up")


class ThreadPeers:
    """`AsyncPeers` for any thread: they are on a thread of their own, so that `close` ends every call."""

    def __init__(self, make: Callable[[], AsyncPeers]) -> None:
        self._thread = LoopThread("wavserve-http")
        self._peers = self._thread.run(_made(make))
        self.route = self._peers.route

    def call(self, call: HttpCall[Answer], timeout_s: float | None) -> Answer:
        """As `Peers.call`."""
        return self._thread.run(self._peers.call(call, timeout_s))

    def close(self) -> None:
        """As `Peers.close`. Harmless when called again."""
        self._thread.end(self._peers.close)


async def _made(make: Callable[[], AsyncPeers]) -> AsyncPeers:
    return make()


def open_peers(targets: Targets, key: str, max_bytes: int, proxy: bool) -> Peers | ThreadPeers:
    """`key` as in `Route`. Connects with the first call. Raises InvalidRequest for addresses that are none."""
    names = parse_targets(targets)
    if is_url(names[0]):
        return ThreadPeers(lambda: open_async_peers(names, key, max_bytes, proxy))
    peers = {name: GrpcPeer(name, max_bytes, proxy) for name in names}
    return Peers(Route(key, names), peers, calls.policy_call(None))


def open_async_peers(targets: Targets, key: str, max_bytes: int, proxy: bool) -> AsyncPeers:
    """As `open_peers`, inside a running loop."""
    names = parse_targets(targets)
    route = Route(key, names)
    if is_url(names[0]):
        return AsyncPeers(
            route, {name: AsyncHttpPeer(name, max_bytes, proxy) for name in names}, http_calls.policy_call(None)
        )
    return AsyncPeers(route, {name: AsyncGrpcPeer(name, max_bytes, proxy) for name in names}, calls.policy_call(None))
