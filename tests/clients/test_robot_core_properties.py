"""What the robot client keeps for any order of what the program, the server and the link do."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.clients.chunks import chunk_of, line
from tests.clients.gateways import observation_at
from tests.clients.test_robot_core import Rig, welcome
from wavserve.clients.robot_observations import Waiting
from wavserve.core.control import (
    ControlObservation,
    DropReason,
    GoAway,
    ObservationDropped,
    ResetAck,
    ResetStream,
    StreamError,
    Welcome,
)
from wavserve.core.errors import NotReady
from wavserve.core.messages import ActionChunk

steps = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "observe",
                "observe",
                "take",
                "write",
                "chunk",
                "drop",
                "fail",
                "reset",
                "acknowledge",
                "end",
                "open",
                "drain",
            ]
        ),
        st.integers(0, 12),
    ),
    max_size=80,
)


class Life:
    """A core under a script, with a server that counts its epochs."""

    def __init__(self) -> None:
        self.rig = Rig()
        self.core = self.rig.core
        self.is_open = True
        self.epoch = 1
        self.step = 0
        self.encoding: Waiting | None = None
        self.resets: list[ResetStream] = []
        self.given: list[int] = []
        self.written: list[ControlObservation] = []
        self.lost: set[int] = set()
        """observations that were being encoded when the stream ended"""

    def run(self, script: list[tuple[str, int]]) -> None:
        for name, number in script:
            getattr(self, name)(number)
            self.check_events()

    def observe(self, _: int) -> None:
        self.step += 1
        sequence = self.core.observe(observation_at(self.step, self.step))
        if sequence is not None:
            assert self.is_open
            self.given.append(sequence)

    def take(self, _: int) -> None:
        """The writer has one observation at a time."""
        if self.is_open and self.encoding is None:
            self.encoding = self.core.take()

    def write(self, _: int) -> None:
        if self.encoding is None:
            return
        message = self.core.encoded(self.encoding, ())
        self.encoding = None
        if message is not None:
            assert self.is_open
            self.written.append(message)

    def sent(self, number: int) -> int:
        return self.written[-1 - number % len(self.written)].sequence if self.written else 1_000_000

    def chunk(self, number: int) -> None:
        """Of this epoch or of an older one, of any observation, also twice."""
        if self.is_open:
            epoch = self.epoch - number % 2
            self.core.received(chunk_of(line(0, 1, 4), sequence=self.sent(number), epoch=epoch))

    def drop(self, number: int) -> None:
        if self.is_open:
            self.core.received(ObservationDropped(self.sent(number), DropReason.SUPERSEDED, 0, self.epoch))

    def fail(self, number: int) -> None:
        if self.is_open:
            self.core.received(StreamError(name="not-ready", message="", sequence=self.sent(number), epoch=self.epoch))

    def reset(self, _: int) -> None:
        self.core.reset()

    def acknowledge(self, _: int) -> None:
        while (message := self.core.next_control()) is not None:
            if isinstance(message, ResetStream) and self.is_open:
                self.epoch += 1
                self.core.received(ResetAck(message.id, self.epoch, 0))

    def end(self, _: int) -> None:
        if self.is_open:
            if self.encoding is not None:
                self.lost.add(self.encoding.sequence)
            self.is_open, self.encoding = False, None
            self.core.ended(NotReady("cut"))

    def open(self, number: int) -> None:
        if not self.is_open:
            self.is_open = True
            self.epoch += 1
            self.core.opened(welcome(self.epoch, resumed=bool(number % 2)))

    def drain(self, _: int) -> None:
        if self.is_open:
            self.core.received(GoAway(0))

    def check_events(self) -> None:
        for event in self.rig.events():
            if isinstance(event, Welcome | ResetAck):
                assert event.epoch == self.epoch
            if isinstance(event, ActionChunk):
                assert event.epoch == self.epoch
                assert self.is_open


@settings(deadline=None, max_examples=300)
@given(steps)
def test_sequences_rise_epochs_are_the_latest_and_no_old_chunk_is_given(script: list[tuple[str, int]]) -> None:
    life = Life()
    life.run(script)
    assert life.given == sorted(set(life.given))
    sequences = [message.sequence for message in life.written]
    assert sequences == sorted(set(sequences))
    assert [message.epoch for message in life.written] == sorted(message.epoch for message in life.written)
    assert all(message.executed_steps >= 0 for message in life.written)
    assert life.core.link.connected == life.is_open


@settings(deadline=None, max_examples=200)
@given(steps)
def test_every_observation_that_is_not_sent_is_told_once(script: list[tuple[str, int]]) -> None:
    life = Life()
    told: list[int] = []
    for name, number in script:
        getattr(life, name)(number)
        told += [event.sequence for event in life.rig.events() if isinstance(event, ObservationDropped)]
    written = {message.sequence for message in life.written}
    under_way = {each.sequence for each in (life.core.take(), life.encoding) if each is not None}
    unsent = set(life.given) - written - life.lost - under_way
    assert [sequence for sequence in told if sequence in unsent] == sorted(unsent)
