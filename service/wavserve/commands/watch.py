"""`wavserve watch`: the robots that are connected to a server, live in the terminal. Needs the base install only."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from wavserve.commands import output
from wavserve.core.address import ADDRESS, parse_address
from wavserve.core.errors import InvalidRequest, NotReady
from wavserve.system.texts import printable

if TYPE_CHECKING:
    from wavserve.core.control import RobotStatus

    Robots = Sequence[RobotStatus]

_ONCE_TIMEOUT_S = 10.0
_RETRY_S = 1.0
_HEADER = (
    *("ROBOT", "CLIENT", "EPOCH", "UP", "PLANS", "P50", "P95", "STEPS", "AGE", "DEADLINE", "DROPPED", "ERRORS"),
    *("SEAM", "STARVED", "NOW"),
)


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`wavserve watch`."""
    watch = commands.add_parser(
        "watch",
        help="show the connected robots and their chunks",
        description="Show the robots that are connected to a server, and their chunks, live. Ctrl-C ends it.",
    )
    watch.add_argument(
        "server", nargs="?", default="127.0.0.1:8001", metavar="HOST:PORT", help="gRPC address (default: %(default)s)"
    )
    watch.add_argument(
        "--interval", type=float, default=1.0, metavar="S", help="seconds between two looks (default: %(default)s)"
    )
    watch.add_argument("--once", action="store_true", help="look once and end")
    watch.add_argument("--json", action="store_true", help="print one JSON object for each look")
    watch.add_argument("--proxy", action="store_true", help="connect through the HTTP proxy of the environment")
    watch.set_defaults(run=_watch)


def _watch(args: argparse.Namespace) -> int:
    from wavserve.clients.onlooker import Onlooker

    try:
        server = str(parse_address(args.server))
    except ValueError:
        raise InvalidRequest("HOST:PORT", ADDRESS, repr(args.server)) from None
    with Onlooker(server, proxy=args.proxy) as onlooker:
        if args.once:
            _show(next(onlooker.watch(args.interval, _ONCE_TIMEOUT_S), []), server, args)
            return 0
        follow(partial(onlooker.watch, args.interval), partial(_show, server=server, args=args))


def follow(
    look: Callable[[], Iterable[Robots]], show: Callable[[Robots], None], pause: Callable[[float], None] = time.sleep
) -> NoReturn:
    """Shows what each look tells, until Ctrl-C. A server that is restarted is followed again."""
    while True:
        try:
            for robots in look():
                show(robots)
            output.progress("the server stops")
        except NotReady as error:
            output.progress(error.message)
        pause(_RETRY_S)


def _show(robots: Robots, server: str, args: argparse.Namespace) -> None:
    if args.json:
        output.write(output.as_json({"robots": list(robots)}))
        return
    count = "1 robot" if len(robots) == 1 else f"{len(robots)} robots"
    text = f"{server}: {count}\n\n{output.table(_HEADER, [_row(robot) for robot in robots])}"
    if args.once:
        output.write(text)
    else:
        output.page(text)


def _row(robot: RobotStatus) -> tuple[object, ...]:
    chunk, report = robot.last_chunk, robot.last_report
    first = "-" if chunk is None else chunk.first_control_step
    steps = "-" if chunk is None else f"{first}+{len(chunk.actions)}" + (" cut" if chunk.cut is not None else "")
    return (
        printable(robot.robot_id),
        printable(robot.client),
        robot.epoch,
        _duration(robot.connected_s),
        robot.chunks,
        "-" if chunk is None else f"{robot.plan_ms_p50:.0f} ms",
        "-" if chunk is None else f"{robot.plan_ms_p95:.0f} ms",
        steps,
        "-" if chunk is None else f"{robot.last_chunk_age_s:.1f} s",
        "-" if chunk is None else chunk.receipt.deadline.value,
        robot.dropped,
        robot.errors,
        "-" if report is None else f"{report.seam_jump:.3f}",
        "-" if report is None else report.starved_steps,
        _now(robot),
    )


def _now(robot: RobotStatus) -> str:
    """What the robot does, as it reported last."""
    report = robot.last_report
    if report is None:
        return "-"
    faults = f" ({printable(', '.join(report.faults))})" if report.faults else ""
    return ("moves" if report.hold_reason is None else f"holds: {report.hold_reason.value}") + faults


def _duration(seconds: float) -> str:
    minutes, whole = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{whole:02}"
