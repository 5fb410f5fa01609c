"""`make loadtest`: simulated robots against the service, by a scenario; results as JSON and as one page.

Starts a service of its own, or uses one that runs (`--url`, `--grpc`). Exit code 1 when a criterion is not met, 2 when
the run could not be made.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil

from loadtest.robots import scenario, verdicts
from loadtest.robots.journal import Journal
from loadtest.robots.page import page
from loadtest.robots.progress import Progress
from loadtest.robots.results import results
from loadtest.robots.run import Run, Target
from loadtest.robots.scenario import Scenario, ScenarioError
from wavserve.system import serve_process

FOLDER = Path(__file__).parent
GRPC_WITHIN_S = 10.0
SLOW_SERVICE = (sys.executable, "-m", "loadtest.robots.slow_service")


RUN_ERRORS = (
    ScenarioError,
    ValueError,
    LookupError,
    RuntimeError,
    TimeoutError,
    httpx.HTTPError,
    httpx.InvalidURL,
    psutil.Error,
)


def main() -> int:
    args, serve_arguments = arguments()
    serve_process.end_with_us()
    try:
        chosen = scenario.load(scenario.find(args.scenario))
        chosen = chosen if args.duration is None else chosen.lasting(args.duration)
        out = args.out or FOLDER / "results" / f"{Path(args.scenario).stem}.json"
        check_writable(out)
        with target(args, chosen, serve_arguments) as service:
            os.nice(chosen.nice)  # after the service was started: it keeps its own
            return report(chosen, service, out)
    except RUN_ERRORS as error:
        print(f"loadtest: {error}", file=sys.stderr)
        return 2


def arguments() -> tuple[argparse.Namespace, list[str]]:
    """Ours, and those of `wavserve serve` for a service of our own."""
    parser = argparse.ArgumentParser(description=__doc__, epilog="Further arguments go to `wavserve serve`.")
    parser.add_argument("scenario", nargs="?", default="smoke", help="a name in loadtest/scenarios, or a .toml file")
    parser.add_argument("--url", help="base URL of a running service, instead of one of our own")
    parser.add_argument("--grpc", help="its gRPC address, HOST:PORT")
    parser.add_argument("--pid", type=int, help="its process, where its memory is to be watched")
    parser.add_argument("--duration", type=float, metavar="S", help="seconds of the scenario's longest phase")
    parser.add_argument(
        "--out", type=Path, help="results; the page lies beside them (default loadtest/results/NAME.json)"
    )
    return parser.parse_known_args()


@contextlib.contextmanager
def target(args: argparse.Namespace, chosen: Scenario, serve_arguments: Sequence[str]) -> Iterator[Target]:
    """The service that is named, or one for the length of a block."""
    if args.url:
        check_named(args, chosen, serve_arguments)
        if args.pid is not None:
            psutil.Process(args.pid)
        yield Target(args.url, args.grpc, args.pid)
        return
    slow_ms = chosen.service.slow_ms
    command = serve_process.SERVE if not slow_ms else (*SLOW_SERVICE, f"--slow-ms={slow_ms}")
    flags = [f"--set={setting}" for setting in chosen.service.settings]
    with tempfile.TemporaryDirectory(prefix="wavserve-loadtest-") as folder:
        say("starting a service")
        with serve_process.running(Path(folder) / "server.log", [*flags, *serve_arguments], command) as service:
            yield Target(service.http, service.grpc, service.process.pid)


def check_writable(out: Path) -> None:
    """Raises ScenarioError: a run whose results cannot be kept is not begun."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.touch()
        out.with_suffix(".html").touch()
    except OSError as error:
        raise ScenarioError(f"--out: expected a file that can be written, got {out}: {error.strerror}") from error


def check_named(args: argparse.Namespace, chosen: Scenario, serve_arguments: Sequence[str]) -> None:
    """Raises ScenarioError for what cannot be had of a service that runs already."""
    if serve_arguments:
        raise ScenarioError(f"{serve_arguments[0]}: arguments of `wavserve serve` need a service of our own")
    if chosen.service.slow_ms or chosen.service.settings:
        raise ScenarioError("--url: this scenario says how its service is started, so it needs one of its own")
    if not any(group.edge == "grpc" for group in chosen.robots.values()):
        return
    if args.grpc is None:
        raise ScenarioError("--grpc: robots of this scenario speak gRPC; expected its HOST:PORT, got nothing")
    with grpc.insecure_channel(args.grpc) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=GRPC_WITHIN_S)
        except grpc.FutureTimeoutError:
            raise ScenarioError(f"--grpc: expected a service's HOST:PORT, nothing answers at {args.grpc!r}") from None


def report(chosen: Scenario, service: Target, out: Path) -> int:
    """Runs, judges, writes; the exit code."""
    about = {"service": asked(service), "command": " ".join(sys.argv[1:])}
    journal = asyncio.run(drive(chosen, service))
    judged = verdicts.judge(chosen, journal)
    told = results(chosen, journal, judged, about)
    out.write_text(json.dumps(told, indent=1), encoding="utf-8")
    out.with_suffix(".html").write_text(page(told, journal), encoding="utf-8")
    print(verdicts.table(judged))
    print(f"{out}\n{out.with_suffix('.html')}")
    return 0 if told["ok"] else 1


def asked(service: Target) -> Mapping[str, Any]:
    """What the service says of itself."""
    policy = httpx.get(f"{service.http}/v1/policies", timeout=30.0).raise_for_status().json()["policies"][0]
    return {name: policy[name] for name in ("name", "digest", "untrained", "horizon", "control_hz", "defaults")}


async def drive(chosen: Scenario, service: Target) -> Journal:
    """The run, with its progress on standard error."""
    run = Run(chosen, service)
    progress = Progress(run.journal)
    run.on_phase = progress.enter
    watching = asyncio.create_task(progress.watch())
    try:
        return await run.play()
    finally:
        watching.cancel()
        print(file=sys.stderr)


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
