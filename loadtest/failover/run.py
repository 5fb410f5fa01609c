"""Kills gateways, Tritons, models and Redis under robots that plan (`make failover KILLS=20`).

It starts a Redis, two gateways with a Triton each, and eight robots. Then one part after another dies and comes back.
At the end every answer is compared with the one that it should have been. Progress goes to standard error. The last
line of standard output is a JSON object with figures and aims. Exit code 0: every aim is met. 1: an aim is not met. 2:
the run failed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from loadtest import aims
from loadtest.bench.control_frames import Pictures
from loadtest.failover import figures, oracle
from loadtest.failover.fleet import FleetRobot, Logbook, Role, fleet
from loadtest.failover.kills import Killer
from loadtest.failover.oracle import Oracle
from loadtest.failover.site import Gateway, Site, running_site
from loadtest.failover.stream import StreamRobot
from loadtest.failover.unary import UnaryRobot
from loadtest.robots.frames import Frames
from wavserve.app.service import Service, assemble
from wavserve.app.settings import BackendSettings, BundleSettings, Settings
from wavserve.clients.async_client import AsyncPlanClient
from wavserve.core.errors import WavserveError
from wavserve.system import serve_process

Work = Callable[[], Coroutine[Any, Any, None]]

KILLS = "kills"
"""Name of the phase with kills."""
PERIOD_S = 1.0
"""Mean time from an answer to the next request of a robot."""
SETTLE_S = 3.0
"""How long robots go on after the last repair."""
RUN_ERRORS = (WavserveError, RuntimeError, TimeoutError, OSError)


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked of a run."""

    num_kills: int
    seed: int
    seconds: float
    """length of each of the two phases without kills; 0: none"""


@dataclass(slots=True)
class Result:
    """What a run saw."""

    logbook: Logbook = field(default_factory=Logbook)
    killer: Killer | None = None
    verdict: oracle.Verdict = field(default_factory=oracle.Verdict)
    twice: Sequence[str] = ()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=5, help="parts that are killed, one after another")
    parser.add_argument("--seed", type=int, default=0, help="of the order of kills and the pauses between them")
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="load with two gateways and then with one, no kills"
    )
    args = parser.parse_args()
    serve_process.raise_on_sigterm()
    try:
        with tempfile.TemporaryDirectory(prefix="wavserve-failover-") as folder:
            result = run(Path(folder), Wish(args.kills, args.seed, args.seconds))
    except RUN_ERRORS as error:
        print(f"failover: {error}", file=sys.stderr)
        return 2
    found = report(result)
    print(aims.table(found["aims"]))
    print(json.dumps(found))
    return 0 if aims.none_missed(found["aims"]) else 1


def run(folder: Path, wish: Wish) -> Result:
    """One run in a folder. Raises RuntimeError and TimeoutError when a part does not come back."""
    return asyncio.run(_run(folder, wish))


def report(result: Result) -> dict[str, Any]:
    """Figures and aims as plain data for JSON."""
    logbook, verdict = result.logbook, result.verdict
    kills = result.killer.kills if result.killer else []
    messages = Counter(one.message for one in logbook.log.requests if one.message)
    return {
        "kills": len(kills),
        "gaps": figures.gaps_by_kind(logbook.answers, kills),
        "phases": {phase: figures.phase_figures(logbook, phase) for phase in ("two", "one", KILLS)},
        "answers": len(logbook.answers),
        "compared_with_a_lone_robot": verdict.num_alone,
        "replayed": verdict.num_replayed,
        "unrecorded": len(verdict.unrecorded),
        "largest_difference": verdict.worst,
        "sessions": len({(answer.role.name, answer.session) for answer in logbook.answers}),
        "messages": dict(messages.most_common(5)),
        "aims": figures.evaluate(logbook, fleet(KILLS), kills, verdict, result.twice),
    }


async def _run(folder: Path, wish: Wish) -> Result:
    async with lone(folder) as service:
        result = Result()
        say("starting Redis and two gateways")
        with running_site(folder, gateway_arguments(folder, "triton-embedded")) as site:
            await _drive(site, wish, result)
            folders = [gateway.records for gateway in site.gateways]
        recorded, result.twice = oracle.recorded_plans(folders)
        say(f"comparing {len(result.logbook.answers)} answers")
        result.verdict = await Oracle(service).judge(result.logbook.answers, recorded)
        return result


def gateway_arguments(folder: Path, backend: str) -> list[str]:
    """Of `wavserve serve`, with the bundle that `lone` creates in the folder. Compilation takes minutes."""
    own = ["--preset", "tiny", "--set", f"bundle.root={folder}"]
    return ["--backend", backend, "--set", "backend.compile=off", *own]


@contextlib.asynccontextmanager
async def lone(folder: Path) -> AsyncIterator[Service]:
    """The policy in this process. It is assembled first, because that creates the bundle that the gateways serve."""
    bundle = BundleSettings(preset="tiny", root=folder)
    service = await assemble(Settings(bundle=bundle, backend=BackendSettings(kind="local", compile="off")))
    try:
        service.policy.skip_warm_up()
        yield service
    finally:
        await service.close()


async def _drive(site: Site, wish: Wish, result: Result) -> None:
    """The phases: two gateways, one gateway, and kills."""
    killer = result.killer = Killer(site, wish.seed, say)
    phases = {"two": site.gateways, "one": site.gateways[:1]} if wish.seconds else {}
    for phase, gateways in phases.items():
        say(f"{wish.seconds:.0f} s with {phase}")
        await load(gateways, result.logbook, phase, partial(asyncio.sleep, wish.seconds))
    if wish.num_kills:
        say(f"{wish.num_kills} kills")
        await load(site.gateways, result.logbook, KILLS, partial(_kills, killer, wish.num_kills))


async def _kills(killer: Killer, num_kills: int) -> None:
    await killer.kill(num_kills)
    await asyncio.sleep(SETTLE_S)


async def load(gateways: Sequence[Gateway], logbook: Logbook, phase: str, work: Work) -> None:
    """Robots ask until `work` has ended, and get what they have asked for. Raises at once what a robot raises."""
    async with contextlib.AsyncExitStack() as stack:
        robots = []
        for role in fleet(phase):
            robots.append(await _robot(role, gateways, logbook))
            stack.push_async_callback(robots[-1].close)
        over = asyncio.Event()
        working = asyncio.create_task(work())
        asking = [asyncio.create_task(_turns(each, phase, over, number)) for number, each in enumerate(robots)]
        try:
            await asyncio.wait([working, *asking], return_when=asyncio.FIRST_COMPLETED)
            over.set()
            await _results(working, *asking)
        finally:
            for task in (working, *asking):
                task.cancel()
            await asyncio.gather(working, *asking, return_exceptions=True)


async def _results(*tasks: asyncio.Task[None]) -> None:
    """Waits for all tasks, until one of them fails. Raises its error."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    for task in done:
        task.result()


async def _turns(robot: FleetRobot, phase: str, over: asyncio.Event, number: int) -> None:
    draw = random.Random(number)
    while not over.is_set():
        await robot.turn(phase)
        await asyncio.sleep(PERIOD_S * draw.uniform(0.5, 1.5))


async def _robot(role: Role, gateways: Sequence[Gateway], logbook: Logbook) -> FleetRobot:
    """A robot that knows the addresses of all gateways."""
    targets = [each.http if role.link == "http" else each.grpc for each in gateways]
    frames = Frames.recorded()
    if role.link != "stream":
        return UnaryRobot(role, AsyncPlanClient(targets, robot_id=role.name), frames, logbook)
    robot = StreamRobot(role, frames, Pictures.recorded(), logbook)
    async with AsyncPlanClient(targets) as client:
        policy = await client.policy()
    await robot.connect(targets, policy)
    return robot


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
