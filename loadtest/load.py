"""Runs a scenario of simulated robots against the service (`make loadtest`).

It starts a service, or uses a running one (`--url`, `--grpc`). It writes the results as JSON and as an HTML page. Exit
code 0: every aim is met. 1: an aim is not met. 2: the run failed.
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

import httpx
import psutil

from loadtest import aims
from loadtest.robots import criteria, scenario
from loadtest.robots.event_log import EventLog
from loadtest.robots.page import page
from loadtest.robots.progress import Progress
from loadtest.robots.results import results
from loadtest.robots.run import Run, Target
from loadtest.robots.scenario import Scenario, ScenarioError
from wavserve.clients.plan_client import PlanClient
from wavserve.core.errors import WavserveError
from wavserve.system import serve_process

FOLDER = Path(__file__).parent
GRPC_TIMEOUT_S = 10.0
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
    serve_process.raise_on_sigterm()
    try:
        chosen = scenario.load(scenario.find(args.scenario))
        chosen = chosen if args.duration is None else chosen.lasting(args.duration)
        out = args.out or FOLDER / "results" / f"{Path(args.scenario).stem}.json"
        check_writable(out)
        with target(args, chosen, serve_arguments) as service:
            os.nice(chosen.nice)  # after the start of the service, which keeps its own niceness
            return report(chosen, service, out)
    except RUN_ERRORS as error:
        print(f"loadtest: {error}", file=sys.stderr)
        return 2


def arguments() -> tuple[argparse.Namespace, list[str]]:
    """The arguments of this program, and the remaining arguments, which are passed to `wavserve serve`."""
    parser = argparse.ArgumentParser(description=__doc__, epilog="Further arguments are passed to `wavserve serve`.")
    parser.add_argument(
        "scenario", nargs="?", default="smoke", help="name of a scenario in loadtest/scenarios, or path of a .toml file"
    )
    parser.add_argument("--url", help="base URL of a running service; without it, the load test starts one")
    parser.add_argument("--grpc", help="gRPC address of the running service, HOST:PORT")
    parser.add_argument("--pid", type=int, help="process id of the running service, whose memory is then recorded")
    parser.add_argument(
        "--duration",
        type=float,
        metavar="S",
        help="seconds of the scenario's longest phase; the other phases keep their length",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="file of the JSON results; the page is written beside it (default: loadtest/results/NAME.json)",
    )
    return parser.parse_known_args()


@contextlib.contextmanager
def target(args: argparse.Namespace, chosen: Scenario, serve_arguments: Sequence[str]) -> Iterator[Target]:
    """The running service that the arguments name, or a new one that stops at the end of the block."""
    if args.url:
        check_running(args, chosen, serve_arguments)
        if args.pid is not None:
            psutil.Process(args.pid)
        yield Target(args.url, args.grpc, args.pid)
        return
    slow_ms = chosen.service.slow_ms
    command = serve_process.SERVE if not slow_ms else (*SLOW_SERVICE, f"--slow-ms={slow_ms}")
    flags = ["--preset=tiny", *(f"--set={setting}" for setting in chosen.service.settings)]
    with tempfile.TemporaryDirectory(prefix="wavserve-loadtest-") as folder:
        say("starting the service")
        with serve_process.running(Path(folder) / "server.log", [*flags, *serve_arguments], command) as service:
            yield Target(service.http, service.grpc, service.process.pid)


def check_writable(out: Path) -> None:
    """Raises ScenarioError when the results cannot be written. Call it before the run begins."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.touch()
        out.with_suffix(".html").touch()
    except OSError as error:
        raise ScenarioError(f"--out: expected a writable file, got {out}: {error.strerror}") from error


def check_running(args: argparse.Namespace, chosen: Scenario, serve_arguments: Sequence[str]) -> None:
    """Raises ScenarioError when the arguments or the scenario do not fit a running service."""
    if serve_arguments:
        raise ScenarioError(
            f"{serve_arguments[0]}: arguments of `wavserve serve` do not apply to a running service (--url)"
        )
    if chosen.service.slow_ms or chosen.service.settings:
        raise ScenarioError("--url: this scenario sets options of its service, so the load test must start the service")
    if not any(group.edge == "grpc" for group in chosen.robots.values()):
        return
    if args.grpc is None:
        raise ScenarioError("--grpc: robots of this scenario use gRPC; expected HOST:PORT, got nothing")
    try:
        with PlanClient(args.grpc) as client:
            client.policy(timeout_s=GRPC_TIMEOUT_S)
    except WavserveError as error:
        raise ScenarioError(
            f"--grpc: expected the HOST:PORT of a service, got {args.grpc!r}, which does not answer: {error.message}"
        ) from None


def report(chosen: Scenario, service: Target, out: Path) -> int:
    """Runs the scenario, evaluates its criteria and writes the results. Returns the exit code."""
    about = {"service": policy_of(service), "command": " ".join(sys.argv[1:])}
    log = asyncio.run(drive(chosen, service))
    evaluated = criteria.evaluate(chosen, log)
    found = results(chosen, log, evaluated, about)
    out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    out.with_suffix(".html").write_text(page(found, log), encoding="utf-8")
    print(aims.table(evaluated))
    print(f"{out}\n{out.with_suffix('.html')}")
    return 0 if found["ok"] else 1


def policy_of(service: Target) -> Mapping[str, Any]:
    """The facts that the service reports about its policy."""
    answer = httpx.get(f"{service.http}/v1/policies", timeout=30.0, trust_env=False).raise_for_status()
    policy = answer.json()["policies"][0]
    return {name: policy[name] for name in ("name", "digest", "untrained", "horizon", "control_hz", "defaults")}


async def drive(chosen: Scenario, service: Target) -> EventLog:
    """Runs the scenario, with its progress on standard error."""
    run = Run(chosen, service)
    progress = Progress(run.log)
    run.on_phase = progress.enter
    watching = asyncio.create_task(progress.watch())
    try:
        return await run.run()
    finally:
        watching.cancel()
        print(file=sys.stderr)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
