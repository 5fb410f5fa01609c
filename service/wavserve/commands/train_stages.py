"""`wavserve train vae | video | value | action | bundle | unpack`: the stages of training, and bundles of runs.

Knows the command line. Decides nothing about losses or weights: `wavserve.training` does.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wavserve.commands import output

if TYPE_CHECKING:
    from wavserve.training.job import Job

_STAGES = {
    "vae": "the video autoencoder",
    "video": "the video transformer on what comes next",
    "value": "the value expert on the frozen video transformer",
    "action": "all three transformers on actions",
}
_DATA = "data sets, whose episodes are joined in this order"
_EPISODES = "train on the first NUM episodes of each data set (default: all that there are when the stage begins)"
_CHECKPOINT = "time between two checkpoints (default: %(default)s)"
_UNPACK = "Make a run of a bundle, for `train action --start RUN` where the run of the bundle is not there."
_START = "another run with a finished action stage, from whose weights this one starts"


def add(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The actions of `wavserve train` that train."""
    for stage, what in _STAGES.items():
        _add_stage(actions, stage, what)
    bundle = actions.add_parser("bundle", help="make a run's bundle", description="Make the bundle of a run.")
    _add_run(bundle)
    bundle.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="new folder of the bundle")
    bundle.set_defaults(run=_bundle, extra="train")
    unpack = actions.add_parser("unpack", help="make a run of a bundle, to train on from it", description=_UNPACK)
    unpack.add_argument("bundle", type=Path, help="folder of a bundle of the recipe")
    _add_run(unpack, "new folder of the run")
    unpack.set_defaults(run=_unpack, extra="train")


def count(text: str) -> int:
    """A whole number above 0."""
    if (number := int(text)) < 1:
        raise ValueError
    return number


def duration(text: str) -> float:
    """A finite number from 0 on."""
    if not 0.0 <= (number := float(text)) < float("inf"):
        raise ValueError
    return number


def _add_stage(actions: argparse._SubParsersAction[argparse.ArgumentParser], stage: str, what: str) -> None:
    parser = actions.add_parser(
        stage, help=f"train {what}", description=f"Train {what}. The same command goes on with a run that was stopped."
    )
    _add_run(parser)
    parser.add_argument("--data", type=Path, nargs="+", required=True, metavar="FOLDER", help=_DATA)
    parser.add_argument("--episodes", type=count, nargs="+", metavar="NUM", help=_EPISODES)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: %(default)s")
    parser.add_argument("--threads", type=count, metavar="NUM", help="of torch (default: one for each core)")
    parser.add_argument("--checkpoint-s", type=duration, default=60.0, metavar="S", help=_CHECKPOINT)
    if stage == "action":
        parser.add_argument("--start", type=Path, metavar="RUN", help=_START)
    parser.set_defaults(run=_stage, extra="train")


def _add_run(parser: argparse.ArgumentParser, folder: str = "folder of the run, made if missing") -> None:
    parser.add_argument("--recipe", type=Path, required=True, metavar="TOML", help="the policy's recipe")
    parser.add_argument("--folder", type=Path, required=True, metavar="RUN", help=folder)


def _stage(args: argparse.Namespace) -> int:
    from wavserve.training.stages import train_stage

    nums = None if args.episodes is None else tuple(args.episodes)
    options = {"nums": nums, "checkpoint_s": args.checkpoint_s, "device": args.device}
    job = _job(args, data=tuple(args.data), num_threads=args.threads, start=getattr(args, "start", None), **options)
    train_stage(args.action, job)
    return 0


def _bundle(args: argparse.Namespace) -> int:
    from wavserve.training.export import make_bundle

    output.write(str(make_bundle(_job(args), args.out).folder))
    return 0


def _unpack(args: argparse.Namespace) -> int:
    from wavserve.training.unpack import unpack_bundle

    unpack_bundle(_job(args), args.bundle)
    return 0


def _job(args: argparse.Namespace, **options: Any) -> Job:
    from wavserve.training.job import Job
    from wavserve.training.recipe import load_recipe

    return Job(recipe=load_recipe(args.recipe), run=args.folder, report=output.progress, **options)
