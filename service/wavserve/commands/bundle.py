"""`wavserve bundle create | prepare | inspect | import | golden`: makes policy bundles, shows them, imports them.

Knows nothing of a bundle's content: `wavserve.bundle` and `wavserve.models` define and check it.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from wavserve.commands import output
from wavserve.core.spec import Resize

_OUT = "new folder (default: NAME in the setting bundle.root, or in bundles)"
_CHECKPOINT = "safetensors file, index of shards, or folder with either"
_ASSETS = "folder with vae/, text_encoder/ and tokenizer/"
_DOMAIN = "dataset name in the statistics file; required if the configuration lists several"
_ABSOLUTE_DIMS = "action indices that are never deltas or offsets (default: grippers of a 14-dim two-arm vector)"
_MEMORY_THRESHOLD = "executed steps before a frame enters the memory (default: the configuration's, else 1)"
_ROTATED = "cameras whose images were rotated by 180 degrees in training (default: none)"
_LIMITS = "the action's limits: an object as action.limits of policy.json has it (default: no limits)"
_HOLD = "what a hold sends in each dimension of the action: last, or zero for offsets (default: last everywhere)"
_NO_GOLDEN = "make no golden plan; real robots refuse such a bundle"
_RESIZE = "filter for images of another size (default: exact, which refuses them)"


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`wavserve bundle` and its actions."""
    bundle = commands.add_parser(
        "bundle", help="create, inspect or import a policy bundle", description="Work with policy bundles."
    )
    actions = bundle.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_create(actions)
    _add_prepare(actions)
    _add_inspect(actions)
    _add_import(actions)
    _add_golden(actions)


def _add_create(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    create = actions.add_parser(
        "create",
        help="create a preset bundle with random weights",
        description="Create a bundle of a preset with seeded random weights, for tests and benchmarks.",
    )
    create.add_argument("--preset", required=True, metavar="NAME", help="tiny, tiny-piper, libero or piper")
    create.add_argument("--out", type=Path, metavar="FOLDER", help=_OUT)
    create.add_argument("--seed", type=int, default=0, help="seed of the random weights (default: %(default)s)")
    create.add_argument("--no-golden", action="store_true", help=_NO_GOLDEN)
    create.set_defaults(run=_create)


def _add_prepare(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    prepare = actions.add_parser(
        "prepare",
        help="create the bundle that the settings name, where there is none",
        description="Check the bundle that the settings name, or create it if it is a preset, as a service would. The "
        "settings come from the environment and from $WAVSERVE_CONFIG.",
    )
    prepare.set_defaults(run=_prepare)


def _add_inspect(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    inspect = actions.add_parser(
        "inspect",
        help="check a bundle and describe it",
        description="Check a bundle and print its spec, its digest and a summary of its files, as JSON.",
    )
    inspect.add_argument("folder", type=Path, help="the bundle's folder")
    inspect.set_defaults(run=_inspect)


def _add_import(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    importing = actions.add_parser(
        "import",
        help="make a bundle from the authors' files",
        description="Make a bundle from the authors' checkpoint, configuration and statistics.",
    )
    files = importing.add_argument_group("files")
    files.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help=_CHECKPOINT)
    files.add_argument("--config", type=Path, required=True, metavar="YAML", help="the authors' model configuration")
    files.add_argument("--stats", type=Path, required=True, metavar="JSON", help="the authors' data statistics")
    files.add_argument("--assets", type=Path, required=True, metavar="FOLDER", help=_ASSETS)
    files.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="new folder of the bundle")
    facts = importing.add_argument_group("facts that the files do not contain")
    facts.add_argument("--name", required=True, help="name of the policy")
    facts.add_argument("--norm", required=True, choices=("minmax", "meanstd"), help="kind of normalisation")
    facts.add_argument("--state-units", required=True, type=_texts, metavar="U,U,...", help="one unit per dimension")
    facts.add_argument("--action-units", required=True, type=_texts, metavar="U,U,...", help="one unit per dimension")
    facts.add_argument("--control-hz", required=True, type=float, metavar="HZ", help="control steps per second")
    optional = importing.add_argument_group("optional facts")
    optional.add_argument("--domain", metavar="NAME", help=_DOMAIN)
    optional.add_argument("--state-names", type=_texts, metavar="N,N,...", help="default: state_0,state_1,...")
    optional.add_argument("--action-names", type=_texts, metavar="N,N,...", help="default: action_0,action_1,...")
    optional.add_argument("--absolute-dims", type=_numbers, metavar="I,I,...", help=_ABSOLUTE_DIMS)
    optional.add_argument("--memory-threshold", type=int, metavar="STEPS", help=_MEMORY_THRESHOLD)
    optional.add_argument("--resize", choices=get_args(Resize), help=_RESIZE)
    optional.add_argument(
        "--embodiment", metavar="NAME", help="kind of robot, such as piper_dual (default: undeclared)"
    )
    optional.add_argument("--rotated-cameras", type=_texts, metavar="N,N,...", help=_ROTATED)
    optional.add_argument("--limits", type=Path, metavar="JSON", help=_LIMITS)
    optional.add_argument("--hold", type=_texts, metavar="H,H,...", help=_HOLD)
    optional.add_argument("--no-golden", dest="with_golden", action="store_false", help=_NO_GOLDEN)
    importing.set_defaults(run=_import)


def _add_golden(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    golden = actions.add_parser(
        "golden",
        help="add the golden plan to a bundle that has none",
        description="Plan an example observation by the reference path, and store it with its actions in the bundle. A "
        "server takes no requests while its own plan differs.",
    )
    golden.add_argument("folder", type=Path, help="the bundle's folder")
    golden.set_defaults(run=_golden)


def _create(args: argparse.Namespace) -> int:
    from wavserve.app.settings_sources import load_from_process
    from wavserve.models.weights import presets

    folder = args.out or load_from_process(None).settings.bundle.presets / args.preset
    progress = _progress_printer(f"making {folder}")
    presets.create(args.preset, folder, args.seed, progress, with_golden=not args.no_golden)
    output.write(str(folder))
    return 0


def _prepare(args: argparse.Namespace) -> int:
    from wavserve.app.policy_bundle import open_bundle
    from wavserve.app.settings_sources import load_from_process
    from wavserve.system.log_lines import configure_logging

    settings = load_from_process(None).settings
    configure_logging(settings.log.level, settings.log.format)
    output.write(str(open_bundle(settings.bundle).folder))
    return 0


def _inspect(args: argparse.Namespace) -> int:
    from wavserve.bundle import bundle

    output.write(output.as_json(bundle.inspect(args.folder)))
    return 0


def _golden(args: argparse.Namespace) -> int:
    from wavserve.models.golden import add_golden

    output.write(add_golden(args.folder).digest)
    return 0


def _import(args: argparse.Namespace) -> int:
    from wavserve.models.weights.importer import ImportOptions, import_policy

    given = {field.name: getattr(args, field.name, None) for field in dataclasses.fields(ImportOptions)}
    options = ImportOptions(**{name: value for name, value in given.items() if value is not None})
    import_policy(args.checkpoint, args.config, args.stats, args.assets, args.out, options)
    output.write(str(args.out))
    return 0


def _texts(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _progress_printer(what: str) -> Callable[[float], None]:
    """A function of the finished fraction that writes each tenth once."""
    printed = -1

    def report(fraction: float) -> None:
        nonlocal printed
        tenth = int(fraction * 10)
        if tenth > printed:
            printed = tenth
            output.progress(f"{what}: {tenth * 10} %")

    return report
