"""`wavserve train demos` generates demonstrations in the simulator; `train inspect` says what a data set contains.

Puts together the simulator and the training. Decides nothing about episodes: `wavserve.training` does.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from wavserve.commands import output, train_card, train_held_out, train_stages
from wavserve.core.errors import InvalidRequest

if TYPE_CHECKING:
    from wavserve.training.demos.acting import ActingPolicy
    from wavserve.training.demos.protocol import RecordingConfig, Takeover

_DEMOS = (
    "Generate demonstrations of the scripted expert as a LeRobot v3 data set. The same command goes on with a data set "
    "that was interrupted; a larger number of episodes makes it larger."
)
_POLICY = "a trained policy that acts first, until the expert takes over"
_ALONE = "share of the episodes that the policy plays to their end (default: 0.2)"
_EARLY = "share of the others in which the expert takes over early, at a random step (default: 0.4)"


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`wavserve train` and its actions."""
    train = commands.add_parser(
        "train", help="make demonstrations and train a policy", description="Make demonstrations and train a policy."
    )
    actions = train.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_demos(actions)
    _add_inspect(actions)
    train_stages.add(actions)
    train_held_out.add(actions)
    train_card.add(actions)


def ranges(text: str) -> tuple[int, ...]:
    """`0-2,7` is 0, 1, 2, 7. argparse writes the name of this function into its errors."""
    numbers: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not (several := range(int(first), int(last or first) + 1)):
            raise ValueError
        numbers += several
    return tuple(numbers)


def seed(text: str) -> int:
    """A whole number from 0 on."""
    if (number := int(text)) < 0:
        raise ValueError
    return number


def share(text: str) -> float:
    """A number from 0 to 1."""
    if not 0.0 <= (number := float(text)) <= 1.0:
        raise ValueError
    return number


def _add_demos(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    demos = actions.add_parser("demos", help="generate demonstrations", description=_DEMOS)
    demos.add_argument("--suite", required=True, metavar="NAME", help="suite of tasks that move one object each")
    demos.add_argument("--tasks", type=ranges, default=(), metavar="I-J,...", help="indices of tasks (default: all)")
    demos.add_argument("--episodes", type=int, default=100, metavar="NUM", help="of each task (default: %(default)s)")
    demos.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder of the data set")
    demos.add_argument(
        "--workers", type=int, default=1, metavar="N", help="simulators at a time (default: %(default)s)"
    )
    demos.add_argument("--seed", type=seed, default=0, metavar="NUM", help="of all starts (default: %(default)s)")
    demos.add_argument("--size", type=int, default=128, metavar="PIXELS", help="of the pictures (default: %(default)s)")
    demos.add_argument("--no-antialiasing", action="store_true", help="render without, as its policy must be evaluated")
    demos.add_argument("--policy", type=Path, metavar="BUNDLE", help=_POLICY)
    demos.add_argument("--alone", type=share, metavar="SHARE", help=_ALONE)
    demos.add_argument("--early", type=share, metavar="SHARE", help=_EARLY)
    demos.set_defaults(run=_demos, extra="train,libero")


def _add_inspect(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    inspect = actions.add_parser(
        "inspect", help="say what a data set contains", description="Print the episodes of a data set, by task."
    )
    inspect.add_argument("folder", type=Path, help="the data set's folder")
    inspect.add_argument("--plot", type=Path, metavar="PNG", help="draw the reward of a success and of a failure")
    inspect.set_defaults(run=_inspect, extra="train")


def _demos(args: argparse.Namespace) -> int:
    from wavserve.app import environment
    from wavserve.simulation.config import SimulationConfig, renderer_of
    from wavserve.simulation.environment import open_environment
    from wavserve.training.demos.generation import Generation
    from wavserve.training.demos.progress import Progress
    from wavserve.training.demos.protocol import RecordingConfig
    from wavserve.training.demos.request import Request

    config = RecordingConfig(size=args.size, takeover=_takeover(args))
    acting = _acting(args, config)
    request = Request(
        suite=args.suite,
        tasks=args.tasks,
        num_episodes=args.episodes,
        seed=args.seed,
        antialiasing=not args.no_antialiasing,
        config=config,
        policy="" if acting is None else acting.name,
    )
    inherited = environment.inherited()
    simulation = SimulationConfig(args.size, request.antialiasing, renderer_of(inherited))
    generation = Generation(request, partial(open_environment, simulation, inherited), args.workers, acting)
    generation.run(args.out, Progress(time.monotonic, output.progress))
    output.write(str(args.out))
    return 0


def _takeover(args: argparse.Namespace) -> Takeover:
    from wavserve.training.demos.protocol import Takeover

    shares = {name: getattr(args, name) for name in ("alone", "early") if getattr(args, name) is not None}
    if shares and args.policy is None:
        name = next(iter(shares))
        raise InvalidRequest(f"--{name}", "--policy beside it", "none")
    return Takeover(**shares)


def _acting(args: argparse.Namespace, config: RecordingConfig) -> ActingPolicy | None:
    """The policy that acts first."""
    if args.policy is None:
        return None
    from wavserve.training.demos.acting import acting_policy

    return acting_policy(args.policy, config.size, config.takeover.replan_steps)


def _inspect(args: argparse.Namespace) -> int:
    from wavserve.training.dataset import open_dataset
    from wavserve.training.summary import KINDS, draw_reward, summaries

    dataset = open_dataset(args.folder)
    header = ("task", "episodes", *KINDS, "success", "mean steps", "KB an episode")
    rows = [
        (
            each.task,
            each.num_episodes,
            *each.kinds,
            f"{each.success:.1%}",
            f"{each.mean_steps:.0f}",
            f"{each.mean_bytes / 1e3:.0f}",
        )
        for each in summaries(dataset)
    ]
    output.write(output.table(header, rows))
    if args.plot is not None:
        success, failure = draw_reward(dataset, args.plot)
        output.progress(f"{args.plot}: the reward of episodes {success} and {failure}")
    return 0
