"""Settings on the command line: the flags that give them, and `wavserve config show`.

Knows no key's meaning or limits: `app.settings` defines and checks them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from wavserve.commands import output
from wavserve.core.address import without_login

if TYPE_CHECKING:  # pydantic is not in the base install
    from wavserve.app.settings_sources import Loaded

NAMED_FLAGS = {
    "--http-port": ("http.port", "PORT", "HTTP port"),
    "--grpc-port": ("grpc.port", "PORT", "gRPC port"),
    "--bundle": ("bundle.path", "FOLDER", "policy bundle"),
    "--preset": ("bundle.preset", "NAME", "auto, tiny, tiny-piper, libero or piper"),
    "--backend": ("backend.kind", "NAME", "where the models run: auto, local, triton-embedded or triton"),
    "--triton-url": ("triton.urls", "HOST:PORT[,...]", "gRPC endpoints of running Tritons, or dns:///NAME:PORT"),
    "--record": ("record.folder", "FOLDER", "folder for records of answered plans"),
}
"""Short forms of `--set KEY=VALUE`: flag -> key, form of the value, meaning."""


def add_settings_arguments(parser: argparse.ArgumentParser) -> None:
    """`--config`, `--set` and the named flags, collected as `(key, text, source)` in `args.given`."""
    parser.set_defaults(given=[])
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings file (TOML; default: $WAVSERVE_CONFIG)")
    parser.add_argument("--set", action=_Set, metavar="KEY=VALUE", help="a setting, e.g. http.port=9000; repeatable")
    for flag, (key, metavar, meaning) in NAMED_FLAGS.items():
        parser.add_argument(flag, action=_Named, metavar=metavar, help=f"{meaning}; same as --set {key}={metavar}")


def load(args: argparse.Namespace) -> Loaded:
    """The settings of a parsed command line. Raises SettingsError."""
    from wavserve.app.settings_sources import Given, load_from_process

    return load_from_process(args.config, [Given(key, text, source) for key, text, source in args.given])


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`wavserve config show`."""
    config = commands.add_parser("config", help="show the settings", description="Show the settings.")
    actions = config.add_subparsers(dest="action", required=True, metavar="ACTION")
    show = actions.add_parser(
        "show",
        help="print every setting",
        description="Print every setting: its description, its value and the source of the value.",
    )
    add_settings_arguments(show)
    show.add_argument("--json", action="store_true", help="print one JSON object: key -> value and source")
    show.set_defaults(run=_show)


def _show(args: argparse.Namespace) -> int:
    rows = list(load(args).rows())
    if args.json:
        output.write(output.as_json({key: {"value": value, "source": source} for key, value, source in rows}))
        return 0
    from wavserve.app.settings_sources import descriptions

    described = descriptions()
    for key, value, source in rows:
        output.write(f"# {described[key]}\n{key} = {'none' if value is None else value}   # {source}\n")
    return 0


class _Set(argparse.Action):
    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: object, *_: object
    ) -> None:
        key, equals, text = str(values).partition("=")
        if not equals:
            parser.error(f"--set: expected KEY=VALUE, got {without_login(str(values))!r}")
        namespace.given = [*namespace.given, (key, text, "flag --set")]


class _Named(argparse.Action):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        flag = option_string or self.option_strings[0]
        namespace.given = [*namespace.given, (NAMED_FLAGS[self.option_strings[0]][0], str(values), f"flag {flag}")]
