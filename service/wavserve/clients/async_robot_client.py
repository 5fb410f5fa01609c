"""The robot's client of the control stream, for an event loop. `robot_client` is the same one on a thread of its own.

All waiting is here; what to say and when is in `robot_core`. Pictures are encoded on a thread, so that pings go on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio
import numpy as np

from wavserve.clients.calls import MAX_MESSAGE_BYTES
from wavserve.clients.channels import Link, channel_options
from wavserve.clients.gateways import Targets, parse_grpc_targets
from wavserve.clients.images import ImageEncoder
from wavserve.clients.robot import Event, RobotDescription, RobotObservation, RobotOptions
from wavserve.clients.robot_core import RobotCore
from wavserve.clients.robot_stream import RobotStream, ask_policy
from wavserve.clients.robot_view import RobotView
from wavserve.core.control import ClientMessage, ExecutionReport, Welcome
from wavserve.core.errors import ClientClosed, NotReady, WavserveError
from wavserve.core.messages import PolicyInfo
from wavserve.wire.control import client_message

_log = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 1.0
"""How long `close` may wait for the stream to end in order."""


class AsyncRobotClient(RobotView):
    """A robot's stream to a server (`host:port`, no TLS). Make it inside a running loop. An async context manager.

    Several gateways of one policy are one text with commas, or a sequence. It connects again by itself, to the next.
    Each stream is a new epoch: give it to the player. Only `connect` and `close` wait; any thread may use the rest.
    """

    def __init__(
        self,
        target: Targets,
        robot: RobotDescription,
        options: RobotOptions | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        """`on_event` is called on the loop for each event; `poll` then gives none. Raises InvalidRequest."""
        self._options = options or RobotOptions()
        targets = parse_grpc_targets(target)
        self._links = {each: _link(each, self._options) for each in targets}
        self._on_event = on_event
        super().__init__(RobotCore(robot, self._options, targets=targets))
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._changed = asyncio.Condition()
        self._welcome: Welcome | None = None
        self._encoder = ThreadPoolExecutor(1, "wavserve-encode")
        self._running: asyncio.Task[None] | None = None

    async def connect(self, timeout_s: float = 10.0) -> Welcome:
        """Asks for the policy, compares it with the robot, and opens the stream. Returns once the server welcomes it.

        Raises ContractMismatch naming field, expected and actual, another error that a new attempt does not mend,
        ClientClosed when the client is closed meanwhile, and after `timeout_s` what the last attempt met. The client
        then goes on trying until it is closed.
        """
        self._links[self.gateway].check_open()
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(self._is_decided)
        if self.core.leaving:
            raise ClientClosed(f"{self.gateway}: this client is closed; make another one")
        if self.core.stopped is not None:
            raise self.core.stopped
        if self._welcome is None:
            raise self.core.error
        return self._welcome

    def _is_decided(self) -> bool:
        return self._welcome is not None or self.core.stopped is not None or self.core.leaving

    def observe(self, observation: RobotObservation) -> int | None:
        """Hands over an observation, and returns its sequence number. The newest wins: it replaces one that waits.

        While the server asks to be left alone (see `is_waiting`), it waits and grows old.

        Returns None, and the observation is gone, when no stream is open, the server stops, or a reset is under way.
        The pictures are copied.
        """
        images = {name: np.copy(picture) for name, picture in observation.images.items()}
        captured_ns = observation.captured_mono_ns or time.monotonic_ns()
        sequence = self.core.observe(replace(observation, images=images, captured_mono_ns=captured_ns))
        self._wake_soon()
        return sequence

    def report(self, report: ExecutionReport) -> None:
        """Tells the server and its onlookers what the robot executed. Raises InvalidRequest."""
        client_message(report)  # refuses what the contract does not have, here and not on the network's side
        self.core.report(report)
        self._wake_soon()

    def reset(self) -> None:
        """Makes the server forget the frame memory. No chunk from before is given any more; `ResetAck` follows."""
        self.core.reset()
        self._wake_soon()

    async def close(self) -> None:
        """Ends the stream in order, within 2 s. Harmless when called again."""
        self.core.leave()
        self._wake.set()
        async with self._changed:
            self._changed.notify_all()
        if self._running is not None:
            await asyncio.wait([self._running], timeout=CLOSE_TIMEOUT_S)
            self._running.cancel()
            await asyncio.wait([self._running], timeout=CLOSE_TIMEOUT_S)
        for link in self._links.values():
            for channel in link.close():
                await channel.close()
        self._encoder.shutdown(wait=False, cancel_futures=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    # ------------------------------------------------------------------------------------------------------- attempts

    async def _run(self) -> None:
        """One stream after another, until the client is closed or stops."""
        while not self.core.leaving:
            target = self.gateway
            channel = self._links[target].channel()
            try:
                await self._one_stream(target, channel)
                error: WavserveError = NotReady(f"{target}: the server ended the stream")
            except WavserveError as caught:
                self._links[target].failed(channel, caught)
                error = caught
            except Exception as unexpected:  # noqa: BLE001  # a bug of ours must not end the robot's link in silence
                _log.exception("the stream failed")
                error = WavserveError(f"{type(unexpected).__name__}: {unexpected}")
            pause_s = self.core.ended(error)
            self._welcome = None
            await self._tell()
            if pause_s is None or self.core.leaving:
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(self._leave_asked(), pause_s)

    async def _one_stream(self, target: str, channel: grpc.aio.Channel) -> None:
        """Opens a stream and keeps it until it ends. Raises what ended it."""
        timeout_s = self._options.attempt_timeout_s
        policy = await ask_policy(target, channel, timeout_s)
        stream = RobotStream(target, channel)
        try:
            await stream.write(_bytes(self.core.hello(policy)), timeout_s)
            self._welcome = self.core.opened(await stream.read(timeout_s))
            encoder = _encoder(self._welcome.policy, self.core.robot, self._options)
            await self._tell()
            await _first_of(self._reader(stream), self._writer(stream, encoder), self._watch())
        finally:
            stream.cancel()

    async def _reader(self, stream: RobotStream) -> None:
        while True:
            self.core.received(await stream.read())
            await self._tell()

    async def _writer(self, stream: RobotStream, encoder: ImageEncoder) -> None:
        """Writes one message at a time. While a write is pending, the slot keeps the newest observation only."""
        while True:
            self._wake.clear()
            while (message := self._next_control() or await self._next_observation(encoder)) is not None:
                await stream.write(message)
            if self.core.leaving:
                await stream.done_writing()
                await asyncio.sleep(CLOSE_TIMEOUT_S)  # the server ends the stream; a cancellation may outrun the Bye
                return
            await self._wake.wait()

    def _next_control(self) -> bytes | None:
        message = self.core.next_control()
        return None if message is None else _bytes(message)

    async def _next_observation(self, encoder: ImageEncoder) -> bytes | None:
        """The observation in the slot as bytes. One that cannot be sent is told to the program."""
        raw, waiting = None, self.core.take()
        if waiting is not None:
            try:
                seen = waiting.observation
                with waiting.span.child("encode pictures"):
                    work = self._loop.run_in_executor(self._encoder, encoder.encode, seen.images, seen.captured_mono_ns)
                    images = await work
                message = self.core.encoded(waiting, images)
                raw = None if message is None else _bytes(message)
            except WavserveError as error:
                self.core.failed(waiting, error)
        await self._tell()
        return raw

    async def _watch(self) -> None:
        """Pings, and ends the stream when the server is silent at two looks: one may be the fault of a busy loop."""
        was_silent = False
        while True:
            await asyncio.sleep(self._options.ping_interval_s)
            if self.core.is_silent and was_silent:
                raise NotReady(f"{self.gateway}: no message for {self._options.link_timeout_s:g} s")
            was_silent = self.core.is_silent
            self.core.ping()
            self._wake.set()

    # --------------------------------------------------------------------------------------------------------- within

    async def _tell(self) -> None:
        """Gives the events to the program, and wakes those who wait for the connection."""
        async with self._changed:
            self._changed.notify_all()
        while self._on_event is not None and (event := self.core.poll()) is not None:
            try:
                self._on_event(event)
            except Exception:  # noqa: BLE001  # the link goes on
                _log.exception("the program failed at %s", type(event).__name__)

    async def _leave_asked(self) -> None:
        while not self.core.leaving:
            self._wake.clear()
            await self._wake.wait()

    def _wake_soon(self) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._wake.set)


def _bytes(message: ClientMessage) -> bytes:
    return client_message(message).SerializeToString()


def _link(target: str, options: RobotOptions) -> Link[grpc.aio.Channel]:
    settings = channel_options(target, MAX_MESSAGE_BYTES, options.proxy)
    return Link(target, lambda: grpc.aio.insecure_channel(target, options=settings))


def _encoder(policy: PolicyInfo, robot: RobotDescription, options: RobotOptions) -> ImageEncoder:
    return ImageEncoder(policy.cameras, {each.name: each.orientation for each in robot.cameras}, options.jpeg_quality)


async def _first_of(*works: Coroutine[Any, Any, None]) -> None:
    """Runs all until one ends, and raises what it raised."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
