"""A few robots in one process, each with a control loop: the action player on a thread, the link on others.

`python -m loadtest.bench.control_robots --over control` uses the robot client, `--over unary` a thread that sends the
newest observation with the plan client. The process prints `ready`, waits for a line on standard input, runs, and
prints one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import queue
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from loadtest.bench.control_frames import INSTRUCTION, OPTIONS, Pictures, pose, robot
from wavserve.clients.images import ImageEncoder
from wavserve.clients.piper.loop import RateLoop
from wavserve.clients.plan_client import PlanClient
from wavserve.clients.player import ActionPlayer
from wavserve.clients.player_config import PlayerConfig
from wavserve.clients.robot import Event, RobotObservation, RobotOptions
from wavserve.clients.robot_client import RobotClient
from wavserve.core.control import Welcome
from wavserve.core.messages import ActionChunk, Observation, PolicyInfo

STEPS_PER_OBSERVATION = 30
"""Control steps between two observations of a robot: a second at 30 Hz."""
SETTLE_S = 1.0
"""Control steps of the first second do not count, nor does the first chunk of a robot."""

OnEvent = Callable[[Event], None]


class RobotLink(Protocol):
    """Takes the newest observation, never waits, and gives events on a thread of its own."""

    def observe(self, observation: RobotObservation) -> int | None: ...

    def close(self) -> None: ...


class UnaryRobotLink:
    """Unary Plan for a control loop: a thread encodes and sends the newest observation."""

    def __init__(self, target: str, policy: PolicyInfo, on_event: OnEvent) -> None:
        self._client = PlanClient(target)
        self._encoder = ImageEncoder(policy.cameras)
        self._on_event = on_event
        self._waiting: queue.Queue[RobotObservation | None] = queue.Queue()
        self._session_id: str | None = None
        self._accepted = 0
        self._thread = threading.Thread(target=self._run, name="unary")
        self._thread.start()

    def observe(self, observation: RobotObservation) -> int | None:
        self._waiting.put(observation)
        return None

    def close(self) -> None:
        self._waiting.put(None)
        self._thread.join()
        self._client.close()

    def _run(self) -> None:
        sequence = 0
        while (seen := self._newest()) is not None:
            chunk = self._client.plan(self._request(seen, sequence))
            self._session_id, self._accepted, sequence = chunk.session_id, seen.executed_steps, sequence + 1
            self._on_event(chunk)

    def _newest(self) -> RobotObservation | None:
        seen = self._waiting.get()
        with contextlib.suppress(queue.Empty):
            while seen is not None:
                seen = self._waiting.get_nowait()
        return seen

    def _request(self, seen: RobotObservation, sequence: int) -> Observation:
        return Observation(
            images=self._encoder.encode(seen.images, seen.captured_mono_ns),
            state=seen.state,
            instruction=INSTRUCTION,
            session_id=self._session_id,
            sequence=sequence,
            control_step=seen.control_step,
            executed_steps=seen.executed_steps - self._accepted,
            options=OPTIONS,
        )


@dataclass(slots=True)
class Seen:
    """What one robot measured, in seconds."""

    ticks: list[float] = field(default_factory=list)
    """when each control step began"""
    frame_to_chunk: list[float] = field(default_factory=list)
    """from the capture of the pictures to the chunk"""
    counts: Counter[str] = field(default_factory=Counter)
    """chunks, refused chunks, other events, steps by the source of their command"""


class LoopingRobot:
    """A robot that executes chunks at the policy's rate and observes at a fixed number of steps."""

    def __init__(self, name: str, policy: PolicyInfo, pictures: Pictures, phase: int) -> None:
        self.seen = Seen()
        self._policy, self._pictures, self._phase = policy, pictures, phase
        self._dt_s = 1 / policy.control_hz
        self._player = ActionPlayer(PlayerConfig(hold=policy.action.hold), len(policy.action.names), self._dt_s)
        self._cameras = [camera.name for camera in policy.cameras]
        self._pose = pose(policy)
        self._events: deque[tuple[Event, float]] = deque()
        self._session_id = ""
        self._step = 0
        self._name = name

    def connect(self, target: str, over: str) -> None:
        if over == "unary":
            self._link: RobotLink = UnaryRobotLink(target, self._policy, self._take)
            return
        client = RobotClient(target, robot(self._policy, self._name), RobotOptions(planner=OPTIONS), self._take)
        client.connect()
        self._link = client

    def close(self) -> None:
        self._link.close()

    def loop(self, until: float) -> RateLoop:
        return RateLoop(lambda late_s: self._tick(until), self._dt_s)

    def _take(self, event: Event) -> None:
        self._events.append((event, time.monotonic()))

    def _tick(self, until: float) -> bool:
        now = time.monotonic()
        self.seen.ticks.append(now)
        while self._events:
            self._hear(*self._events.popleft())
        self.seen.counts[self._player.command(self._step).source] += 1
        self._step += 1
        if (self._step + self._phase) % STEPS_PER_OBSERVATION == 0:
            self._observe()
        return now >= until

    def _hear(self, event: Event, at: float) -> None:
        match event:
            case Welcome():
                self._begin(event.session_id, event.epoch)
            case ActionChunk():
                if not self._session_id:  # unary: the first chunk names the session
                    self._begin(event.session_id, event.epoch)
                self.seen.frame_to_chunk.append(at - event.captured_mono_ns / 1e9)
                offer = self._player.offer(event, self._step)
                self.seen.counts["chunks" if offer.accepted else "refused_chunks"] += 1
            case _:
                self.seen.counts["other_events"] += 1

    def _begin(self, session_id: str, epoch: int) -> None:
        self._session_id = session_id
        self._player.begin_epoch(session_id, epoch)

    def _observe(self) -> None:
        number = self._step // STEPS_PER_OBSERVATION
        self._link.observe(
            RobotObservation(
                images=self._pictures.at(number, self._cameras),
                state=self._pose,
                control_step=self._step,
                executed_steps=self._player.executed_steps,
                instruction=INSTRUCTION,
                captured_mono_ns=time.monotonic_ns(),
            )
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", required=True, help="gRPC address of the service, HOST:PORT")
    parser.add_argument("--over", choices=("control", "unary"), required=True)
    parser.add_argument("--first", type=int, required=True, help="number of the first robot, which names it")
    parser.add_argument("--robots", type=int, required=True, help="robots in this process")
    parser.add_argument("--seconds", type=float, required=True)
    args = parser.parse_args()
    with PlanClient(args.target) as client:
        policy = client.policy()
    pictures = Pictures.recorded()
    numbers = range(args.first, args.first + args.robots)
    robots = [LoopingRobot(f"loop-{number}", policy, pictures, phase=4 * number) for number in numbers]
    with contextlib.ExitStack() as stack:
        for each in robots:
            each.connect(args.target, args.over)
            stack.callback(each.close)
        print("ready", flush=True)
        sys.stdin.readline()
        print(json.dumps(ran(robots, args.seconds)))


def ran(robots: Sequence[LoopingRobot], seconds: float) -> dict[str, Any]:
    """Runs the loops side by side. Returns what all robots measured, and the processor time of this process.

    Raises RuntimeError when a loop failed. A robot with fewer than two chunks counts as `starved_robots`.
    """
    cpu_s, until = time.process_time(), time.monotonic() + SETTLE_S + seconds
    loops = [each.loop(until) for each in robots]
    for loop in loops:
        loop.start()
    for loop, each in zip(loops, robots, strict=True):
        loop.join()
        if loop.failure:
            raise RuntimeError(loop.failure)
        each.seen.counts["starved_robots"] += len(each.seen.frame_to_chunk) < 2
    return {
        "cpu_s": time.process_time() - cpu_s,
        "periods_s": [period for each in robots for period in periods(each.seen.ticks)],
        "dropped_ticks": sum(loop.num_dropped for loop in loops),
        "frame_to_chunk_s": [seconds for each in robots for seconds in each.seen.frame_to_chunk[1:]],
        "counts": sum((each.seen.counts for each in robots), Counter()),
    }


def periods(ticks: Sequence[float]) -> list[float]:
    """Seconds between control steps, without those of the first SETTLE_S."""
    settled = [tick for tick in ticks if tick - ticks[0] >= SETTLE_S]
    return [after - before for before, after in itertools.pairwise(settled)]


if __name__ == "__main__":
    main()
