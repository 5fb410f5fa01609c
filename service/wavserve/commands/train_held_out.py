"""`wavserve train held-out`: the small file of held-out observations that a policy is judged by.

Knows the command line. Decides nothing about observations: `wavserve.training` does.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from wavserve.commands import output
from wavserve.commands.train_stages import count
from wavserve.core.errors import InvalidRequest

_WHAT = (
    "Write observations of held-out episodes into a small file, with the expert's actions. `make test` compares the "
    "policy in policies/tiny-libero with them."
)


def add(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`wavserve train held-out`."""
    parser = actions.add_parser("held-out", help="write held-out observations to a file", description=_WHAT)
    parser.add_argument("--recipe", type=Path, required=True, metavar="TOML", help="the policy's recipe")
    parser.add_argument("--data", type=Path, nargs="+", required=True, metavar="FOLDER", help="the data sets")
    parser.add_argument("--each", type=count, default=4, metavar="NUM", help="of each task (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="safetensors file")
    parser.set_defaults(run=_held_out, extra="train")


def _held_out(args: argparse.Namespace) -> int:
    from wavserve.training import held_out
    from wavserve.training.recipe import load_recipe
    from wavserve.training.source import open_source

    recipe = load_recipe(args.recipe)
    found = held_out.collect(open_source(args.data, None, recipe.held_out_every), args.each, recipe.chunk)
    try:
        held_out.write(found, args.out)
    except OSError as error:
        raise InvalidRequest("--out", "a file that can be written", error) from error
    output.write(f"{args.out}: {len(found)} observations")
    return 0
