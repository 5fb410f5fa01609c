"""One episode: settles the scene, then plans and executes until the task is solved or the steps are used up.

The chunks go through the same action player as on a robot. An episode knows an environment, a source of plans and a
clock, and nothing of networks, simulators and files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from wavserve.clients.chunk_order import Refusal
from wavserve.clients.latency import p95
from wavserve.clients.libero.clocks import ClockConfig, PlanClock, check_clock, num_steps_of, open_clock
from wavserve.clients.libero.contract import HOLD, check_hold
from wavserve.clients.libero.draws import Draws
from wavserve.clients.libero.plan_source import EpisodePlan, PlanSource
from wavserve.clients.libero.receipts import receipt_digest
from wavserve.clients.player import ActionPlayer
from wavserve.clients.player_config import PlayerConfig
from wavserve.core.errors import InvalidAnswer, InvalidRequest, NotReady, SimulationDiverged, UnsafeChunk
from wavserve.core.libero import CONTROL_HZ, STILL
from wavserve.core.messages import ActionChunk
from wavserve.core.resize import Pixels
from wavserve.core.rtc import RtcRequest
from wavserve.core.simulation import Environment, Start
from wavserve.core.spec import RtcMode
from wavserve.core.types import Array

DT_S = 1 / CONTROL_HZ
"""One control step of the environment."""
PLAYER = PlayerConfig(blend="replace", blend_excluded=(6,), stop_steps=0, hold=HOLD, action_range=(2.0,) * 7)
"""A new chunk replaces the old one at once, as in the literature, and without an action the robot stands still."""
_GREY = 128
_LATE = (Refusal.EXPIRED, Refusal.OLDER)


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeConfig:
    """The protocol of an episode."""

    replan_steps: int = 8
    """control steps from one observation to the next; where a chunk ends before, or its answer takes longer, the next
    observation follows at once"""
    num_steps_wait: int = 10
    """settling steps before the first observation, on top of the limit"""
    max_steps: int | None = None
    """control steps of the episode; None: the task's own limit"""
    clock: ClockConfig = field(default_factory=ClockConfig)
    rtc_mode: RtcMode = "off"
    """real-time chunking: each plan continues the actions that are left"""
    blind: bool = False
    """the policy sees grey pictures, whatever the cameras see"""
    seed: int = 0
    """of the plans and of the latencies"""


@dataclass(frozen=True, slots=True, eq=False)
class PlannedChunk:
    """A plan as the episode got it."""

    control_step: int
    """at which it was asked for; its first action belongs to this step"""
    actions: Array
    """`[T, A]`"""
    value: float | None
    """the receipt's `value_estimate`; None: not estimated"""
    expected_return: float | None
    """the receipt's; None: not estimated, or the policy declares no units"""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class EpisodeResult:
    """What happened. Only on the wall clock does it depend on the machine."""

    success: bool
    num_steps: int
    """control steps until success or the limit, without the settling steps"""
    num_plans: int
    """whose answer arrived"""
    num_holds: int
    """control steps at which no chunk had an action"""
    num_lost: int
    """plans that were lost on their way"""
    num_unsafe: int
    """plans that the service refused, because they break a limit of the policy"""
    num_late: int
    """chunks that arrived when nothing of them could be executed any more"""
    plan_latencies_ms: tuple[float, ...]
    """of each plan that arrived: drawn on the virtual clock, measured on the wall clock, 0 in lockstep"""
    seam_jumps: tuple[float, ...]
    """at each change of chunks, in fractions of the action's range, without the gripper"""
    receipt_digests: tuple[str, ...]
    chunks: tuple[PlannedChunk, ...]
    failure: str = ""
    """what ended the episode before success and the limit; empty: nothing did"""
    sim_states: NDArray[np.float64]
    """`[num_steps + 1, D]`: the simulator's state before each command, and the last one that is finite"""

    @property
    def values(self) -> tuple[tuple[int, float], ...]:
        """Control step and value estimate of each plan that has one."""
        return tuple((each.control_step, each.value) for each in self.chunks if each.value is not None)


def run_episode(environment: Environment, source: PlanSource, start: Start, config: EpisodeConfig) -> EpisodeResult:
    """Runs one episode. A plan that the service refuses as unsafe is asked for again, with another seed. An episode
    whose commands make the simulation diverge has failed: it would diverge again.

    Raises InvalidRequest for a configuration that makes no sense, ContractMismatch for a policy whose commands mean
    something else, SimulationDiverged before the first plan, and what the environment and the source raise. An episode
    that ends in an error does not count.
    """
    check_config(config)
    check_hold(source.policy())
    task = environment.reset(start)
    _settle(environment, start, config.num_steps_wait)
    source.begin(task.instruction)
    max_steps = task.max_steps if config.max_steps is None else config.max_steps
    draws = Draws(config.seed, start)
    clock = open_clock(config.clock, draws, DT_S)
    try:
        return _Episode(environment, source, clock, draws, config).run(max_steps)
    finally:
        clock.close()


def _settle(environment: Environment, start: Start, num_steps: int) -> None:
    """Stands still. Raises SimulationDiverged naming a scene that does not bear it, which is no policy's failure."""
    try:
        for _ in range(num_steps):
            environment.step(np.array(STILL))
    except SimulationDiverged as error:
        at = f"{start.suite} task {start.task}, state {start.state_index}"
        raise SimulationDiverged(f"{at}: {error.message} before the first plan") from error


def check_config(config: EpisodeConfig) -> None:
    """Raises InvalidRequest naming the field."""
    check_clock(config.clock)
    for name, least in (("replan_steps", 1), ("num_steps_wait", 0), ("seed", 0), ("max_steps", 1)):
        value = getattr(config, name)
        if value is not None and value < least:
            raise InvalidRequest(name, f"at least {least}", value)


class _Episode:
    def __init__(
        self, environment: Environment, source: PlanSource, clock: PlanClock, draws: Draws, config: EpisodeConfig
    ) -> None:
        self._environment, self._source, self._clock, self._draws = environment, source, clock, draws
        self._config = config
        self._player = ActionPlayer(PLAYER, len(HOLD), DT_S)
        self._player.hold_from(STILL)
        self._is_waiting = False
        self._next_ask = 0
        self._executed_at_ask = 0  # actions that were executed up to the latest observation
        self._executed_before = 0  # and up to the latest one that the session has
        self._num_holds = self._num_lost = self._num_unsafe = self._num_late = 0
        self._latencies_ms: list[float] = []
        self._seam_jumps: list[float] = []
        self._digests: list[str] = []
        self._chunks: list[PlannedChunk] = []
        self._session_id = ""
        self._grey: dict[str, Pixels] = {}

    def run(self, max_steps: int) -> EpisodeResult:
        states: list[NDArray[np.float64]] = []
        success, failure = False, ""
        while not success and not failure and len(states) < max_steps:
            step = len(states)
            self._receive(step)
            if self._is_due(step):
                self._ask(step)
                self._receive(step)  # without latency it is there already
            states.append(self._environment.sim_state())
            try:
                success = self._execute(step)
            except SimulationDiverged as error:
                failure = error.message
            self._clock.tick()
        return EpisodeResult(
            success=success,
            num_steps=len(states),
            num_plans=len(self._chunks),
            num_holds=self._num_holds,
            num_lost=self._num_lost,
            num_unsafe=self._num_unsafe,
            num_late=self._num_late,
            plan_latencies_ms=tuple(self._latencies_ms),
            seam_jumps=tuple(self._seam_jumps),
            receipt_digests=tuple(self._digests),
            chunks=tuple(self._chunks),
            failure=failure,
            sim_states=np.stack([*states, states[-1] if failure else self._environment.sim_state()]),
        )

    def _is_due(self, step: int) -> bool:
        return not self._is_waiting and (step >= self._next_ask or not self._player.remaining(step))

    def _ask(self, step: int) -> None:
        self._is_waiting, self._next_ask = True, step + self._config.replan_steps
        self._clock.ask(step, partial(self._observe, step), self._plan)

    def _plan(self, request: EpisodePlan) -> ActionChunk | None:
        try:
            return self._source.plan(request)
        except UnsafeChunk:  # another seed may give a plan that the service lets pass; the robot has the old one
            return None

    def _observe(self, step: int) -> EpisodePlan:
        self._executed_at_ask = self._player.executed_steps
        executed = self._executed_at_ask - self._executed_before
        return EpisodePlan(
            images=self._images(),
            state=self._environment.state(),
            control_step=step,
            executed_steps=executed,
            seed=self._draws.plan_seed(step),
            rtc=self._continued(step, executed),
        )

    def _images(self) -> Mapping[str, Pixels]:
        """What the policy sees. A blind one's pictures are rendered once, for their names and sizes."""
        if not self._config.blind:
            return self._environment.images()
        self._grey = self._grey or {
            camera: np.full_like(pixels, _GREY) for camera, pixels in self._environment.images().items()
        }
        return self._grey

    def _continued(self, step: int, executed: int) -> RtcRequest | None:
        """What the next plan continues. Its delay is the latency of most plans so far, within what a server takes."""
        left_over, policy = self._player.left_over(step), self._source.policy()
        if self._config.rtc_mode == "off" or not len(left_over):
            return None
        most = [len(left_over), executed, policy.horizon - executed]
        if self._config.rtc_mode == "rtc_trained":
            most.append(policy.max_trained_delay)
        delay = max(0, min(_delay_steps(self._latencies_ms), *most))
        return RtcRequest(mode=self._config.rtc_mode, inference_delay=delay, prev_chunk_left_over=left_over)

    def _receive(self, step: int) -> None:
        reply = self._clock.reply(step)
        if reply is None:
            return
        self._is_waiting = False
        if reply.chunk is None:
            self._num_lost += reply.lost
            self._num_unsafe += not reply.lost
            self._next_ask = step
        else:
            self._latencies_ms.append(reply.latency_ms)
            self._executed_before = self._executed_at_ask
            self._take(reply.chunk, step)

    def _take(self, chunk: ActionChunk, step: int) -> None:
        """Offers a chunk to the player. A session that goes on at another gateway has a new epoch.

        Raises InvalidAnswer for a chunk that is no answer to this episode, and NotReady for a plan without its memory.
        """
        self._session_id = self._session_id or chunk.session_id
        self._player.begin_epoch(self._session_id, chunk.epoch, resumed=bool(self._chunks))
        if self._chunks and chunk.fresh_memory:
            raise NotReady("the service has forgotten the episode's earlier frames")
        refusal = self._player.offer(chunk, step).refusal
        if refusal is not None and refusal not in _LATE:
            raise InvalidAnswer(f"chunk of step {chunk.first_control_step}: the player refuses it: {refusal.value}")
        self._num_late += refusal is not None
        self._digests.append(receipt_digest(chunk))
        told = chunk.receipt.value_estimate, chunk.receipt.expected_return
        self._chunks.append(PlannedChunk(chunk.first_control_step, chunk.actions, *told))

    def _execute(self, step: int) -> bool:
        command = self._player.command(step)
        assert command.action is not None, "the player has the still pose"
        self._num_holds += command.source == "hold"
        if command.seam_jump is not None and self._player.executed_steps > 1:
            self._seam_jumps.append(command.seam_jump)
        return self._environment.step(command.action)


def _delay_steps(latencies_ms: Sequence[float]) -> int:
    """The latency in control steps that 95 % of the plans keep, rounded up; 0 before the first one."""
    return num_steps_of(p95(latencies_ms), DT_S) if latencies_ms else 0
