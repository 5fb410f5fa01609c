"""`wavserve train card`: the model card of a trained policy, from its folder.

Reads the bundle, `recipe.toml`, and the `results.json` of a study. Decides nothing about the text: `wavserve.training`
does.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from wavserve.commands import output
from wavserve.core.errors import InvalidRequest

if TYPE_CHECKING:
    from wavserve.training.card import Success

RECIPE_FILE, RESULTS_FILE, CARD_FILE = "recipe.toml", "results.json", "README.md"
_WHAT = (
    "Write the model card of a policy into its folder. The folder has the bundle and its recipe.toml, and may have the "
    "results.json of its study."
)


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
    """The card of a policy's folder. Raises BundleError for a bundle, a recipe or results that cannot be read, and for
    results of another policy."""
    from wavserve.bundle import bundle
    from wavserve.training.card import card
    from wavserve.training.recipe import load_recipe

    recipe = load_recipe(folder / RECIPE_FILE)
    facts = bundle.inspect(folder)
    successes = _successes(folder / RESULTS_FILE, str(facts["digest"]))
    return card(facts, bundle.load_spec(folder), recipe, successes)


def _successes(file: Path, digest: str) -> list[Success]:
    """The success of each cell in each part of a study of the policy; none where there is no study yet."""
    from pydantic import TypeAdapter

    from wavserve.bundle.bundle import validated
    from wavserve.bundle.files import read_json
    from wavserve.clients.libero.report.summary import planner_words
    from wavserve.clients.libero.report.table import difference_text, rate_text
    from wavserve.commands.study_results import StudyResults
    from wavserve.core.errors import BundleError
    from wavserve.training.card import Success

    if not file.exists():
        return []
    study = validated(TypeAdapter(StudyResults), read_json(file), file.name)
    if (studied := study.budget.policy_digest) != digest:
        raise BundleError(f"{file}: expected results of this policy, {digest}, got those of {studied or 'none'}")
    return [
        Success(
            part.title,
            cell.name,
            planner_words(cell.planner, cell.blind) if cell.planner else "-",
            rate_text(cell.success),
            difference_text(cell.minus_off) if cell.minus_off else "",
        )
        for part in study.parts
        for cell in part.cells
    ]
