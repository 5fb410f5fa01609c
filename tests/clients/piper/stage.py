"""A robot on a stage: simulated arms, the real SDK, the control loop in real time, a scripted link to a policy."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from tests.clients.chunks import chunk_of
from tests.clients.piper.rig import Listener, channel, eventually, executes
from wavserve.clients.piper import config as configs
from wavserve.clients.piper.arm import Arm
from wavserve.clients.piper.config import ArmConfig, PiperConfig
from wavserve.clients.piper.control import Control, Robot
from wavserve.clients.piper.log import RunLog
from wavserve.clients.piper.loop import RateLoop
from wavserve.clients.piper.mailbox import Arrived, Asked, LinkView, Mailbox, Moment
from wavserve.clients.piper.phases import Order, Phase
from wavserve.clients.piper.simulated import REST_POSE, SimulatedArm
from wavserve.core.messages import ActionChunk, PolicyInfo, Vector
from wavserve.core.spec import CameraSpec, LimitsSpec, PlannerBounds, PlannerConfig, RtcSpec
from wavserve.core.types import Array

EXAMPLE = Path(__file__).parents[3] / "examples" / "piper.toml"
SESSION = "stage"
HORIZON = 54


def config(**changes: object) -> PiperConfig:
    """The example's, on new virtual channels. A busy machine lets simulated arms stand still for longer than real ones
    may: their silence is a fault after 400 ms, before that of their drivers (500 ms)."""
    read = configs.load(EXAMPLE)
    read = replace(read, watch=replace(read.watch, max_feedback_age_ms=400.0, min_feedback_hz=20.0))
    arms = tuple(ArmConfig(arm.name, channel()) for arm in read.arms)
    return replace(read, arms=arms, **changes)  # type: ignore[arg-type]


def policy(robot: PiperConfig, **changes: object) -> PolicyInfo:
    """A policy that fits the robot, trained and with a golden plan."""
    info = PolicyInfo(
        name=robot.policy.name,
        digest="d" * 64,
        untrained=False,
        cameras=tuple(CameraSpec(camera.name, 128, 128, "area") for camera in robot.cameras),
        state=Vector(robot.axis_names, robot.axis_units),
        action=Vector(robot.axis_names, robot.axis_units, limits=LimitsSpec()),
        horizon=HORIZON,
        control_hz=robot.control_hz,
        history_frames=4,
        max_instruction_bytes=255,
        defaults=PlannerConfig(),
        bounds=PlannerBounds(),
        notes="",
        max_message_bytes=2**24,
        embodiment=robot.embodiment,
        action_kind="absolute",
        rtc=RtcSpec(),
        rtc_modes=("off", "rtc_guided"),
        max_trained_delay=0,
        golden_digest="g" * 64,
    )
    return replace(info, **changes)  # type: ignore[arg-type]


def chunk(actions: Array, moment: Moment, sequence: int, epoch: int = 1, session: str = SESSION) -> ActionChunk:
    return chunk_of(actions.astype(np.float32), moment.control_step, sequence, epoch=epoch, session_id=session)


Motion = Callable[[Moment, int], Array]
"""`(moment, sequence) -> actions [T, A]`"""


def swing(moment: Moment, sequence: int) -> Array:
    """Joint 1 of both arms swings by 0.4 rad, in steps of 0.02 rad at most. All chunks agree, to 0.01 mrad."""
    actions = np.repeat(np.array(moment.state)[None], HORIZON, axis=0)
    steps = moment.control_step + np.arange(HORIZON)
    actions[:, (0, 7)] = REST_POSE[0] + 1e-5 * (sequence % 2) + 0.4 * np.sin(0.05 * steps)[:, None]
    return actions


@dataclass(slots=True)
class ScriptedLink:
    """Answers moments with chunks after a latency, one at a time; tests change its fields while it runs."""

    mailbox: Mailbox
    motion: Motion = swing
    latency_s: float = 0.1
    epoch: int = 1
    answers: bool = True
    deliver: Callable[[ActionChunk], list[ActionChunk]] = field(default=lambda chunk: [chunk])
    """what becomes of a chunk on its way"""
    sequence: int = 0
    made: list[ActionChunk] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.ended.is_set():
            moment = self.mailbox.moment
            if not self.answers or moment is None or not moment.wants_chunk or self.mailbox.link.is_lost:
                time.sleep(0.003)
                continue
            self.sequence += 1
            sequence, epoch = self.sequence, self.epoch
            self.mailbox.to_control.append(Asked(sequence, moment.control_step, {}))
            self.ended.wait(self.latency_s)
            made = chunk(self.motion(moment, sequence), moment, sequence, epoch)
            self.made.append(made)
            for each in self.deliver(made):
                self.mailbox.to_control.append(Arrived(each, self.latency_s))
            time.sleep(0.05)  # the control thread takes it, and publishes a new moment

    def connect(self, epoch: int | None = None) -> None:
        self.epoch = epoch or self.epoch
        steps = None if self.latency_s is None else int(self.latency_s * 30) + 2
        self.mailbox.link = LinkView(False, SESSION, self.epoch, steps, at_s=math.inf)

    def lose(self) -> None:
        self.mailbox.link = replace(self.mailbox.link, is_lost=True)


@dataclass(slots=True)
class Stage:
    config: PiperConfig
    arms: list[Arm]
    simulated: list[SimulatedArm]
    listeners: list[Listener]
    control: Control
    loop: RateLoop
    link: ScriptedLink
    mailbox: Mailbox
    log_file: Path

    def arm(self) -> None:
        self.control.order(Order.ARM)
        eventually(lambda: self.phase is Phase.READY)

    @property
    def phase(self) -> Phase:
        return self.control.status.phase

    def moves(self, at_least: int = 15) -> None:
        """Waits until that many more steps of chunks were executed."""
        executes(self.control, at_least)

    def steps(self, arm: int = 0) -> np.ndarray:
        """`[n-1, 6]`: changes between the targets that reached the bus."""
        return np.diff(np.array([target.joints for target in self.listeners[arm].targets()]), axis=0)

    def rests(self, arm: int = 0, ticks: int = 6) -> None:
        """Waits until the same target is repeated on the bus."""

        def still() -> bool:
            targets = self.listeners[arm].targets()
            return len(targets) > ticks and len({each.joints for each in targets[-ticks:]}) == 1

        eventually(still)


@contextmanager
def stage(folder: Path, robot: PiperConfig | None = None, is_dry: bool = False) -> Iterator[Stage]:
    """Everything runs, the link is connected, and nothing is armed."""
    robot = robot or config()
    with ExitStack() as stack:
        simulated = [stack.enter_context(SimulatedArm(arm.channel)) for arm in robot.arms]
        listeners = [Listener(arm.channel) for arm in robot.arms]
        arms = [Arm(arm.name, arm.channel, "virtual") for arm in robot.arms]
        for arm, listener in zip(arms, listeners, strict=True):
            arm.connect()
            stack.callback(listener.close)
            stack.callback(arm.close)
        eventually(lambda: all(arm.latest().drivers_at_s and arm.latest().axes for arm in arms))
        log = RunLog(folder / "run.jsonl", 10**8, 1)
        stack.callback(log.close)
        mailbox = Mailbox()
        control = Control(robot, policy(robot), Robot(arms, mailbox, log, is_dry))

        def tick(late_s: float) -> bool:
            control.tick(late_s)
            return control.status.phase is Phase.LEFT

        loop = RateLoop(tick, robot.dt_s)
        link = ScriptedLink(mailbox)
        link.connect()
        talker = threading.Thread(target=link.run, daemon=True)
        talker.start()
        loop.start()
        try:
            yield Stage(robot, arms, simulated, listeners, control, loop, link, mailbox, folder / "run.jsonl")
        finally:
            control.order(Order.LEAVE)
            link.ended.set()
            talker.join()
            assert loop.join(20), "the control thread does not end"
            assert loop.failure == ""
