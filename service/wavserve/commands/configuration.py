"""Settings on the command line: the flags that give them, and `wavserve config show`.

Called by `cli` and by the commands that take settings. What a key means and may hold is `settings`' affair.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from wavserve.commands import output

if TYPE_CHECKING:  # pydantic is not in the base install
    from wavserve.app.settings_sources import Loaded

NAMED_FLAGS = {
    "--http-port": ("http.port", "PORT"),
    "--grpc-port": ("grpc.port", "PORT"),
    "--bundle": ("bundle.path", "FOLDER"),
    "--preset": ("bundle.preset", "NAME"),
    "--backend": ("backend.kind", "NAME"),
    "--triton-url": ("triton.urls", "HOST:PORT[,...]"),
    "--record": ("record.folder", "FOLDER"),
}
"""Short ways to say `--set key=value`."""


def add_settings_arguments(parser: argparse.ArgumentParser) -> None:
    """`--config`, `--set` and the named flags, collected as `(key, text, source)` in `args.given`."""
    parser.set_defaults(given=[])
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file; default: WAVSERVE_CONFIG")
    parser.add_argument("--set", action=_Set, metavar="KEY=VALUE", help="any setting, e.g. http.port=9000; repeatable")
    for flag, (key, metavar) in NAMED_FLAGS.items():
        parser.add_argument(flag, action=_Named, metavar=metavar, help=f"same as --set {key}={metavar}")


def load(args: argparse.Namespace) -> Loaded:
    """The settings of a parsed command line. Raises SettingsError."""
    from wavserve.app.settings_sources import Given, load_from_process

    return load_from_process(args.config, [Given(key, text, source) for key, text, source in args.given])


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`wavserve config show`."""
    config = commands.add_parser("config", help="settings").add_subparsers(dest="action", required=True)
    show = config.add_parser("show", help="every setting, its value and where that came from")
    add_settings_arguments(show)
    show.add_argument("--json", action="store_true", help="one JSON object: key -> value and source")
    show.set_defaults(run=_show)


def _show(args: argparse.Namespace) -> int:
    rows = list(load(args).rows())
    if args.json:
        output.write(output.as_json({key: {"value": value, "source": source} for key, value, source in rows}))
        return 0
    lines = [(f"{key} = {'none' if value is None else value}", f"# {source}") for key, value, source in rows]
    width = max(len(left) for left, _ in lines)
    for left, right in lines:
        output.write(f"{left:<{width}}   {right}")
    return 0


class _Set(argparse.Action):
    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: object, *_: object
    ) -> None:
        key, equals, text = str(values).partition("=")
        if not equals:
            parser.error(f"--set: expected KEY=VALUE, got {values!r}")
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
