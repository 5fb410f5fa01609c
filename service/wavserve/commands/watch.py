"""`wavserve watch`: the robots that are connected to gateways, live in the terminal. Needs the base install only."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

from wavserve.commands import output
from wavserve.core.errors import NotReady, WavserveError
from wavserve.core.texts import counted
from wavserve.system.texts import printable

if TYPE_CHECKING:
    from wavserve.clients.onlooker import Onlookers, Seen
    from wavserve.core.control import RobotStatus

_SERVER = "a gateway's gRPC address, or several with commas (default: %(default)s)"
_ONCE_TIMEOUT_S = 10.0
_HEADER = (
    *("ROBOT", "CLIENT", "EPOCH", "UP", "PLANS", "P50", "P95", "STEPS", "AGE", "DEADLINE", "DROPPED", "ERRORS"),
    *("SEAM", "STARVED", "NOW"),
)


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`wavserve watch`."""
    watch = commands.add_parser(
        "watch",
        help="show the connected robots and their chunks",
        description="Show the robots that are connected to gateways, and their chunks, live. Ctrl-C ends it.",
    )
    watch.add_argument("server", nargs="?", default="127.0.0.1:8001", metavar="HOST:PORT,...", help=_SERVER)
    watch.add_argument(
        "--interval", type=float, default=1.0, metavar="S", help="seconds between two looks (default: %(default)s)"
    )
    watch.add_argument("--once", action="store_true", help="look once and end")
    watch.add_argument("--json", action="store_true", help="print one JSON object for each look at a gateway")
    watch.add_argument("--proxy", action="store_true", help="connect through the HTTP proxy of the environment")
    watch.set_defaults(run=_watch)


def _watch(args: argparse.Namespace) -> int:
    from wavserve.clients.onlooker import Onlookers

    with Onlookers(args.server, proxy=args.proxy) as onlookers:
        return _once(onlookers, args) if args.once else _follow(onlookers, args)


def _once(onlookers: Onlookers, args: argparse.Namespace) -> int:
    """One look. The exit code is 1 when a gateway does not answer."""
    seen = onlookers.once(args.interval, _ONCE_TIMEOUT_S)
    problems = [gateway for gateway, each in seen.items() if isinstance(each, WavserveError)]
    if args.json:
        for gateway, robots in seen.items():
            _write(gateway, robots)
    elif len(problems) < len(seen):
        output.write(_page(seen))
    else:
        for gateway in problems:
            output.progress(_line(gateway, seen[gateway]))
    return 1 if problems else 0


def _follow(onlookers: Onlookers, args: argparse.Namespace) -> int:
    """Shows each look, until Ctrl-C. Raises what no other attempt mends, once that is so at every gateway."""
    seen: dict[str, Seen] = {each: NotReady("no answer yet") for each in onlookers.targets}
    for gateway, told in onlookers.follow(args.interval):
        seen[gateway] = told
        if isinstance(told, WavserveError) and all(map(_is_lost, seen.values())):
            raise told
        if args.json:
            _write(gateway, told)
        else:
            output.page(_page(seen))
    return 0


def _is_lost(seen: Seen) -> bool:
    """Whether no other attempt is made at a gateway."""
    return isinstance(seen, WavserveError) and not seen.retryable


def _write(gateway: str, seen: Seen) -> None:
    """A look at a gateway, as JSON."""
    if isinstance(seen, WavserveError):
        output.progress(_line(gateway, seen))
    else:
        output.write(output.as_json({"gateway": gateway, "robots": seen}))


def _page(seen: Mapping[str, Seen]) -> str:
    """A line for each gateway, and one for each robot."""
    several = len(seen) > 1
    header = ("GATEWAY", *_HEADER) if several else _HEADER
    rows = [
        (gateway, *_row(robot)) if several else _row(robot)
        for gateway, robots in seen.items()
        if not isinstance(robots, WavserveError)
        for robot in robots
    ]
    lines = [_line(gateway, each) for gateway, each in seen.items()]
    return "\n".join([*lines, "", output.table(header, rows)])


def _line(gateway: str, seen: Seen) -> str:
    """A gateway, and how many robots it has, or why they are not known."""
    if isinstance(seen, WavserveError):
        return f"{gateway}: {printable(seen.message.removeprefix(f'{gateway}: '))}"
    return f"{gateway}: {counted(len(seen), 'robot')}"


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
