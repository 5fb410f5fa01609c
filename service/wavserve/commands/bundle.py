"""`wavserve bundle create | inspect | import`: policy bundles made, looked at, and taken from the authors' files.

Called by `cli`. What a bundle is and what is wrong with one is told by `bundle` and `models`.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from wavserve.commands import output
from wavserve.core.spec import Resize


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`wavserve bundle` and its three actions."""
    actions = commands.add_parser("bundle", help="policy bundles").add_subparsers(dest="action", required=True)
    _add_create(actions)
    _add_inspect(actions)
    _add_import(actions)


def _add_create(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    create = actions.add_parser("create", help="make a preset with seeded random weights")
    create.add_argument("--preset", required=True, metavar="NAME", help="tiny, libero or piper")
    create.add_argument("--out", type=Path, metavar="FOLDER", help="default: the preset's place, bundle.root/NAME")
    create.add_argument("--seed", type=int, default=0, help="of the weights (default %(default)s)")
    create.set_defaults(run=_create)


def _add_inspect(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    inspect = actions.add_parser("inspect", help="what a bundle declares and holds, as JSON")
    inspect.add_argument("folder", type=Path)
    inspect.set_defaults(run=_inspect)


def _add_import(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    take = actions.add_parser("import", help="make a bundle from the authors' checkpoint, config and statistics")
    files = take.add_argument_group("files")
    files.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="safetensors, or a shard index")
    files.add_argument("--config", type=Path, required=True, metavar="YAML", help="the authors' configuration")
    files.add_argument("--stats", type=Path, required=True, metavar="JSON", help="the authors' statistics")
    files.add_argument("--assets", type=Path, required=True, metavar="FOLDER", help="vae, text_encoder and tokenizer")
    files.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="the bundle to make")
    unsaid = take.add_argument_group("what the files leave unsaid, and nobody should guess")
    unsaid.add_argument("--name", required=True, help="of the policy")
    unsaid.add_argument("--norm", required=True, choices=("minmax", "meanstd"), help="which statistics normalise")
    unsaid.add_argument("--state-units", required=True, type=_texts, metavar="U,U,...")
    unsaid.add_argument("--action-units", required=True, type=_texts, metavar="U,U,...")
    unsaid.add_argument("--control-hz", required=True, type=float, metavar="HZ")
    more = take.add_argument_group("with a default")
    more.add_argument("--domain", metavar="NAME", help="where the configuration names several")
    more.add_argument("--state-names", type=_texts, metavar="N,N,...", help="default: state_0,state_1,...")
    more.add_argument("--action-names", type=_texts, metavar="N,N,...", help="default: action_0,action_1,...")
    more.add_argument("--absolute-dims", type=_numbers, metavar="I,I,...", help="default: the grippers of two arms")
    more.add_argument("--memory-threshold", type=int, metavar="STEPS", help="default: the configuration's, or 1")
    more.add_argument("--resize", choices=get_args(Resize), help="default: exact, other sizes are refused")
    take.set_defaults(run=_import)


def _create(args: argparse.Namespace) -> int:
    from wavserve.app.settings_sources import load_from_process
    from wavserve.models.weights import presets

    folder = args.out or load_from_process(None).settings.bundle.root / args.preset
    presets.create(args.preset, folder, args.seed, _tell_progress(f"making {folder}"))
    output.write(str(folder))
    return 0


def _inspect(args: argparse.Namespace) -> int:
    from wavserve.bundle import bundle

    output.write(output.as_json(bundle.inspect(args.folder)))
    return 0


def _import(args: argparse.Namespace) -> int:
    from wavserve.models.weights.importer import ImportOptions, import_policy

    asked = {field.name: getattr(args, field.name, None) for field in dataclasses.fields(ImportOptions)}
    options = ImportOptions(**{name: value for name, value in asked.items() if value is not None})
    import_policy(args.checkpoint, args.config, args.stats, args.assets, args.out, options)
    output.write(str(args.out))
    return 0


def _texts(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _tell_progress(what: str) -> Callable[[float], None]:
    """Tells a waiting person each tenth, once."""
    told = -1

    def tell(fraction: float) -> None:
        nonlocal told
        tenth = int(fraction * 10)
        if tenth > told:
            told = tenth
            output.progress(f"{what}: {tenth * 10} %")

    return tell
