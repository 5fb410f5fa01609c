"""`wavserve libero`: evaluates a policy in the LIBERO simulator. `libero report`, `libero compare`: what runs say.

Puts together the simulator, the evaluation and, with `--in-process`, a policy without a service. Decides nothing about
episodes: `clients/libero` does.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wavserve.clients.libero.options import Options, read_options
from wavserve.commands import output, traces
from wavserve.core.spec import MODES
from wavserve.core.tracing import Tracer

if TYPE_CHECKING:
    from wavserve.clients.libero.plan_source import Planner
    from wavserve.clients.libero.progress import Progress
    from wavserve.clients.libero.records import Run
    from wavserve.core.messages import PolicyInfo
    from wavserve.core.simulation import OpenEnvironment

_DESCRIPTION = (
    "Evaluate a policy in the LIBERO simulator and write every episode to a folder. The same command goes on with a "
    "run that was interrupted. Lists are separated by commas; every combination of --planner, --k, --n, --m, "
    "--latency-ms and --rtc is a cell, with the same initial states and seeds."
)


# argparse writes the names of these functions into its errors.


def texts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def integers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


_FLAGS: tuple[tuple[str, Callable[[str], Any] | None, str, str], ...] = (
    ("suite", texts, "NAME,...", "libero_spatial, libero_object, libero_goal, libero_10, or a perturbed suite"),
    ("tasks", integers, "I,...", "indices of tasks in each suite (default: all)"),
    ("num-trials-per-task", int, "NUM", "episodes of each task in each cell"),
    ("first-state", int, "INDEX", "initial state of the first trial; the others follow"),
    ("replan-steps", int, "STEPS", "control steps from one plan to the next"),
    ("num-steps-wait", int, "STEPS", "settling steps before an episode"),
    ("max-steps", int, "STEPS", "longest episode (default: the suite's limit in the literature)"),
    ("seed", int, "NUM", "the episode of state I has the seed NUM + I; with --shift, one drawn from NUM and I"),
    ("shift", float, "METRES", "objects stand up to this far from their shipped places, as in demonstrations"),
    ("rotation", int, "DEGREES", "0 or 180: how pictures are turned, if the policy does not declare it (default: 180)"),
    ("num-envs", int, "NUM", "simulators at a time, about 2 GB each"),
    ("transport", str, "WAY", "stream, grpc or http: how plans travel"),
    ("service", str, "ADDRESS,...", "HOST:PORT, or http://HOST:PORT with --transport http (default: on this machine)"),
    ("in-process", str, "BUNDLE", "make plans in this process, without a service"),
    ("traces", str, "URL", traces.HELP),
    ("planner", texts, "MODE,...", f"{', '.join(MODES)} (default: the policy's)"),
    ("k", integers, "K,...", "planning iterations (default: the policy's)"),
    ("n", integers, "N,...", "video samples (default: the policy's)"),
    ("m", integers, "M,...", "value samples of each video sample (default: the policy's)"),
    ("clock", str, "CLOCK", "lockstep: the simulator waits for plans; virtual: drawn latencies; wall: real time"),
    ("latency-ms", numbers, "MS,...", "with --clock virtual: mean latency of a plan"),
    ("jitter-ms", float, "MS", "with --clock virtual: standard deviation of the latency"),
    ("loss", float, "SHARE", "with --clock virtual: share of plans that are lost"),
    ("rtc", texts, "MODE,...", "real-time chunking: off, rtc_guided, rtc_trained"),
    ("no-antialiasing", None, "", "render without anti-aliasing, for a policy that was trained so"),
    ("allow-untrained", None, "", "accept a policy with random weights"),
    ("out", str, "FOLDER", "folder of the run"),
    ("videos", int, "NUM", "videos in the report"),
)
"""Flag, type (None: a switch), form of the value, meaning. The defaults are those of `Options`."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`wavserve libero`, `wavserve libero report` and `wavserve libero compare`."""
    libero = commands.add_parser("libero", help="evaluate a policy in the LIBERO simulator", description=_DESCRIPTION)
    libero.add_argument("--config", type=Path, metavar="FILE", help="TOML file with these options, and with `cells`")
    for name, kind, metavar, meaning in _FLAGS:
        if kind is None:
            libero.add_argument(f"--{name}", action="store_true", default=None, help=meaning)
        else:
            libero.add_argument(f"--{name}", type=kind, metavar=metavar, help=f"{meaning}{_default(name)}")
    libero.set_defaults(run=_libero, extra="libero")
    actions = libero.add_subparsers(dest="action", metavar="report | compare")
    report = actions.add_parser("report", help="write a run's report again", description="Write a run's report again.")
    report.add_argument("folder", type=Path)
    report.add_argument("--videos", dest="num_videos", type=int, default=0, metavar="NUM", help="videos (default: 0)")
    report.set_defaults(run=_report)
    compare = actions.add_parser("compare", help="hold two runs against each other", description="Compare two runs.")
    compare.add_argument("a", type=Path, metavar="A")
    compare.add_argument("b", type=Path, metavar="B")
    compare.set_defaults(run=_compare)


def _default(flag: str) -> str:
    """The default of a flag that has one value or a list of values."""
    value = next(field.default for field in fields(Options) if field.name == _name(flag))
    shown = ",".join(f"{each:g}" if isinstance(each, float) else str(each) for each in _listed(value))
    return f" (default: {shown})" if shown else ""


def _listed(value: object) -> tuple[object, ...]:
    return value if isinstance(value, tuple) else () if value in (None, MISSING) else (value,)


def _name(flag: str) -> str:
    return flag.replace("-", "_")


def _libero(args: argparse.Namespace) -> int:
    names = [_name(flag) for flag, *_ in _FLAGS]
    options = read_options(
        {name: getattr(args, name) for name in names if getattr(args, name) is not None}, args.config
    )
    with traces.open_traces(options.traces, "wavserve-libero") as tracer, open_planner(options, tracer) as planner:
        return evaluate(options, planner, simulator(options.antialiasing, planner.policy()), tracer)


def evaluate(
    options: Options, planner: Planner, open_environment: OpenEnvironment, tracer: Tracer | None = None
) -> int:
    """Runs the episodes that are not on record, and writes the report. Returns the exit code."""
    from wavserve.clients.libero.evaluation import Evaluation
    from wavserve.clients.libero.results import ResultsFolder, load_run
    from wavserve.clients.libero.runner import Runner, RunnerParts
    from wavserve.core.simulation import first_reused

    folder = Path(options.out)
    with contextlib.closing(open_environment()) as first:
        evaluation = Evaluation.of(options, planner, first, version("wavserve"), tracer or Tracer())
        with (
            ResultsFolder(folder, evaluation.config) as results,
            progress(load_run(folder), len(evaluation.episodes)) as listener,
        ):
            parts = RunnerParts(
                play=evaluation.play,
                record=evaluation.record,
                open_environment=first_reused(first, open_environment),
                open_source=evaluation.open_source,
                results=results,
                num_envs=options.num_envs,
                listener=listener,
            )
            if evaluation.config.untrained:
                output.progress(f"{evaluation.config.policy} is untrained: it has random weights")
            Runner(evaluation.episodes, parts).run()
    return _conclude(folder, options.videos, open_environment)


@contextlib.contextmanager
def open_planner(options: Options, tracer: Tracer | None = None) -> Iterator[Planner]:
    """Who makes the plans: a service, or models in this process."""
    if options.in_process is None:
        from wavserve.clients.plan_client import PlanClient

        with PlanClient(options.address, tracer=tracer) as client:
            yield client
        return
    from wavserve.app.in_process import InProcessPolicy
    from wavserve.app.settings_sources import Given, load_from_process

    loaded = load_from_process(None, [Given("bundle.path", options.in_process, "flag --in-process")])
    with contextlib.closing(InProcessPolicy(loaded.settings)) as policy:
        yield policy


def simulator(antialiasing: bool, policy: PolicyInfo | None = None) -> OpenEnvironment:
    """LIBERO, with pictures of a policy's size where its cameras have one size."""
    from wavserve.app import environment
    from wavserve.simulation.config import SimulationConfig, renderer_of
    from wavserve.simulation.environment import open_environment

    inherited = environment.inherited()
    config = SimulationConfig(antialiasing=antialiasing, renderer=renderer_of(inherited))
    sizes = {side for camera in (policy.cameras if policy else ()) for side in (camera.height, camera.width)}
    if len(sizes) == 1:
        config = replace(config, size=sizes.pop())
    return partial(open_environment, config, inherited)


@contextlib.contextmanager
def progress(run: Run, num_episodes: int) -> Iterator[Progress]:
    """Tells how far a run is that has so many episodes in all, and ends the line of the present state."""
    from wavserve.clients.libero.progress import Progress

    on_terminal = sys.stderr.isatty()
    show, log = (output.status, _nothing) if on_terminal else (_nothing, output.progress)
    try:
        yield Progress(run.records, num_episodes, time.monotonic, show, log)
    finally:
        if on_terminal:
            output.progress("")


def _nothing(_: str) -> None:
    """A terminal shows the present line only, and a file only lines that stay."""


def _conclude(folder: Path, num_videos: int, open_environment: OpenEnvironment) -> int:
    """Writes the report and prints its table, then adds the videos."""
    from wavserve.clients.libero.report.recording import renderer
    from wavserve.clients.libero.report.write import TABLE_FILE, write_report
    from wavserve.clients.libero.results import load_run

    run = load_run(folder)
    page = write_report(run, folder)  # before the simulator, which may fail to start
    output.write((page.parent / TABLE_FILE).read_text(encoding="utf-8"))
    if num_videos:
        with contextlib.closing(open_environment()) as environment:
            render = renderer(environment, run.config.rotation)
            write_report(run, folder, render, num_videos, output.progress)
    output.progress(f"report: {page}")
    return 0


def _report(args: argparse.Namespace) -> int:
    from wavserve.clients.libero.results import load_run

    antialiasing = load_run(args.folder).config.antialiasing
    return _conclude(args.folder, args.num_videos, simulator(antialiasing))


def _compare(args: argparse.Namespace) -> int:
    from wavserve.clients.libero.report.compare import compare_runs
    from wavserve.clients.libero.results import load_run

    output.write(compare_runs(load_run(args.a), load_run(args.b)))
    return 0
