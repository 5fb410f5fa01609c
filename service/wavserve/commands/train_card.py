"""`wavserve train card`: the model card of a trained policy, from its folder.

Reads the bundle, `recipe.toml` and `results.json`. Decides nothing about the text: `wavserve.training` does.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from wavserve.commands import output
from wavserve.core.errors import InvalidRequest

if TYPE_CHECKING:
    from wavserve.training.card import Success

RECIPE_FILE, RESULTS_FILE, CARD_FILE = "recipe.toml", "results.json", "README.md"
_WHAT = (
    "Write the model card of a policy into its folder. The folder has the bundle and its recipe.toml, and may have a "
    'results.json: {"success": [{"policy": "...", "suite": "...", "starts": "...", "planner": "...", '
    '"num_successes": 1, "num_episodes": 1}, ...]}.'
)


@dataclass(frozen=True, slots=True)
class Count:
    """How often a policy succeeded, as the results state it."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}
    policy: str
    suite: str
    starts: str
    planner: str
    num_successes: int
    num_episodes: int


@dataclass(frozen=True, slots=True)
class Results:
    """The file of results."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}
    success: tuple[Count, ...]


def add(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`wavserve train card`."""
    parser = actions.add_parser("card", help="write a policy's model card", description=_WHAT)
    parser.add_argument("folder", type=Path, help="the policy's folder")
    parser.set_defaults(run=_card, extra="train")


def _card(args: argparse.Namespace) -> int:
    file = args.folder / CARD_FILE
    text = card_of(args.folder)
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidRequest(str(file), "a file that can be written", error) from error
    output.write(str(file))
    return 0


def card_of(folder: Path) -> str:
    """The card of a policy's folder. Raises BundleError for a bundle, a recipe or results that cannot be read."""
    from wavserve.bundle import bundle
    from wavserve.training.card import card
    from wavserve.training.recipe import load_recipe

    recipe = load_recipe(folder / RECIPE_FILE)
    return card(bundle.inspect(folder), bundle.load_spec(folder), recipe, _successes(folder / RESULTS_FILE))


def _successes(file: Path) -> list[Success]:
    from pydantic import TypeAdapter

    from wavserve.bundle.bundle import validated
    from wavserve.bundle.files import read_json
    from wavserve.clients.libero.report.statistics import success_rate
    from wavserve.clients.libero.report.table import rate_text
    from wavserve.core.errors import BundleError
    from wavserve.training.card import Success

    if not file.exists():
        return []
    found = []
    for each in validated(TypeAdapter(Results), read_json(file), file.name).success:
        if not 0 <= each.num_successes <= each.num_episodes or not each.num_episodes:
            expected = f"num_successes: expected 0 to num_episodes, {each.num_episodes}, and an episode"
            raise BundleError(f"{file}: {expected}, got {each.num_successes}")
        rate = rate_text(success_rate(each.num_successes, each.num_episodes))
        found.append(Success(each.policy, each.suite, each.starts, each.planner, rate))
    return found
