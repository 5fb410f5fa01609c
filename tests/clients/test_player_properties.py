"""What the action player keeps for any arrival order and any latency, against a count of its own."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.clients.chunks import DT_S, chunk_of
from wavserve.clients.player import ActionPlayer
from wavserve.clients.player_config import PlayerConfig
from wavserve.clients.trajectory import Commands
from wavserve.core.messages import ActionChunk
from wavserve.core.spec import Hold

DIM = 2
MAX_STEP = 0.5

ticks = st.tuples(st.just("tick"), st.integers(1, 12))
observations = st.tuples(st.just("observe"), st.integers(1, 16))
deliveries = st.tuples(st.just("deliver"), st.integers(0, 6))
others = st.tuples(st.sampled_from(["begin", "reconnect", "expect", "pose"]), st.integers(0, 8))
scripts = st.lists(st.one_of(ticks, observations, deliveries, ticks, deliveries, others), max_size=80)
configs = st.builds(
    PlayerConfig,
    blend_steps=st.integers(0, 9),
    blend=st.sampled_from(["linear", "replace", "average"]),
    blend_excluded=st.sampled_from([(), (1,)]),
    max_open_loop_steps=st.integers(0, 6),
    stop_steps=st.integers(0, 5),
    max_step=st.sampled_from([None, (MAX_STEP, MAX_STEP)]),
    limits=st.sampled_from([None, ((-1.0, 1.0), None)]),
    hold=st.sampled_from([(), ("zero", "last"), ("zero", "zero")]),
)


@dataclass
class Sent:
    """A chunk, and how many actions the robot had consumed in its epoch when its observation was taken."""

    chunk: ActionChunk
    consumed: int
    epoch: int


@dataclass
class Robot:
    """Runs a script, and keeps its own count of what was consumed."""

    player: ActionPlayer
    config: PlayerConfig
    session: str = "s"
    epoch: int = 1
    step: int = 0
    sequence: int = 0
    consumed: int = 0
    """in this epoch"""
    held: int = 0
    """steps of the present hold"""
    overdue: int | None = None
    newest_played: int = -1
    sent: list[Sent] = field(default_factory=list)
    draw: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def run(self, script: list[tuple[str, int]]) -> None:
        self.player.begin_epoch(self.session, self.epoch)
        self.player.hold_from([0.0] * DIM)
        for name, number in script:
            getattr(self, name)(number)
        self.tick(30)

    def observe(self, horizon: int) -> None:
        actions = self.draw.normal(0, 2, (horizon, DIM)).astype(np.float32)
        ids = {"session_id": self.session, "epoch": self.epoch, "chunk_id": str(len(self.sent))}
        self.sent.append(Sent(chunk_of(actions, self.step, self.sequence, **ids), self.consumed, self.epoch))
        self.sequence += 1

    def deliver(self, age: int) -> None:
        if age < len(self.sent):
            chunk = self.sent[-1 - age].chunk
            if self.player.offer(chunk, self.step).accepted:
                self.overdue = None

    def begin(self, _: int) -> None:
        self.epoch += 1
        self.consumed, self.overdue, self.newest_played = 0, None, -1
        self.player.begin_epoch(self.session, self.epoch)

    def reconnect(self, _: int) -> None:
        self.session += "'"
        self.begin(0)

    def expect(self, steps: int) -> None:
        due = self.step + steps
        self.overdue = due if self.overdue is None else min(due, self.overdue)
        self.player.expect(due)

    def pose(self, number: int) -> None:
        self.player.hold_from([number / 8] * DIM)
        self.held = 0

    def tick(self, num_steps: int) -> None:
        for _ in range(num_steps):
            self._tick()

    def _tick(self) -> None:
        before = self.player.last_command
        assert before is not None
        command = self.player.command(self.step)
        assert command.action is not None
        assert np.isfinite(command.action).all()
        if self.config.max_step is not None:
            assert np.abs(command.action - before).max() <= MAX_STEP + 1e-9
        if command.source == "hold":
            self._check_hold(command.action, before)
        else:
            self.held = 0
            sent = self.sent[int(command.chunk_id)]
            assert (sent.chunk.session_id, sent.epoch) == (self.session, self.epoch)
            assert sent.consumed + command.index == self.consumed, "executed twice, skipped or out of order"
            assert sent.chunk.sequence >= self.newest_played
            assert self.overdue is None or self.step < self.overdue + self.config.max_open_loop_steps
            if command.source == "chunk" and not command.clamped and self.config.blend == "replace":
                assert command.action.tolist() == sent.chunk.actions[command.index].tolist()
            self.newest_played = sent.chunk.sequence
            self.consumed += 1
        self.step += 1

    def _check_hold(self, action: Commands, before: Commands) -> None:
        """A position stays where it is, and an offset falls to 0 as fast as it may."""
        self.held += 1
        offsets = np.array(self.config.hold or ("last",) * DIM) == "zero"
        assert (np.abs(action[offsets]) <= np.abs(before[offsets]) + 1e-9).all()
        if self.held > self.config.stop_steps:
            assert action[~offsets].tolist() == before[~offsets].tolist()
            largest = np.inf if self.config.max_step is None else MAX_STEP
            assert action[offsets].tolist() == np.clip(0.0, before - largest, before + largest)[offsets].tolist()


@settings(deadline=None, max_examples=400)
@given(configs, scripts)
def test_every_action_is_executed_at_its_place_or_not_at_all(
    config: PlayerConfig, script: list[tuple[str, int]]
) -> None:
    """Of the actions consumed in an epoch the j-th has index j, counted from the observation of its chunk."""
    Robot(ActionPlayer(config, DIM, DT_S), config).run(script)


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 40), st.integers(0, 9), st.integers(1, 30))
def test_the_first_chunk_begins_at_its_first_action(latency: int, blend_steps: int, horizon: int) -> None:
    player = ActionPlayer(PlayerConfig(blend_steps=blend_steps), 1, DT_S)
    player.begin_epoch("s", 1)
    for step in range(latency):
        assert player.command(step).action is None
    assert player.offer(chunk_of(np.ones((horizon, 1), np.float32), 0), latency).accepted
    assert player.command(latency).index == 0


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(-1, 1), min_size=2, max_size=20), st.integers(0, 8), st.sampled_from(["last", "zero"]))
def test_a_hold_slows_down_in_every_step(actions: list[float], stop_steps: int, hold: Hold) -> None:
    player = ActionPlayer(PlayerConfig(stop_steps=stop_steps, hold=(hold,)), 1, DT_S)
    player.begin_epoch("s", 1)
    player.offer(chunk_of(np.array(actions, np.float32)[:, None]), 0)
    commands = [player.command(step).action for step in range(len(actions) + stop_steps + 3)]
    sent = np.array([float(action[0]) for action in commands if action is not None])
    held = np.abs(np.diff(sent)[len(actions) - 2 :] if hold == "last" else sent[len(actions) - 1 :])
    assert (np.diff(held) <= 1e-9).all()
    assert (held[-2:] == 0).all()
