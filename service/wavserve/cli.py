"""The command line: `wavserve serve | plan | bundle | parity | config`.

Parses, calls one command, turns our errors into one line and an exit code: 0 done, 1 failed, 2 wrong usage; 130 and 141
as a shell tells of an interrupt and of a reader that went away. Knows the commands' modules and nothing of what they
run, so that the robot client starts without torch or the server's packages.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from wavserve.commands import bundle, configuration, parity, plan, serve
from wavserve.core.errors import WavserveError

_COMMANDS = (serve, plan, bundle, parity, configuration)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line (None: this process's) and returns its exit code."""
    args = build_parser().parse_args(argv)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except WavserveError as error:
        return _fail(error.message)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == __package__:
            raise  # our own bug, not a missing extra
        return _fail(f"`wavserve {args.command}` needs {error.name}: pip install '.[server]' in its source")
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read has gone; nor is what is left written as the interpreter ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return code


def build_parser() -> argparse.ArgumentParser:
    """Every command with its arguments; the chosen one's function is `args.run`."""
    parser = argparse.ArgumentParser(prog="wavserve", description="Plans for World-Value-Action robot policies.")
    parser.add_argument("--version", action="version", version=f"wavserve {version('wavserve')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add(commands)
    return parser


def _fail(message: str) -> int:
    print(f"wavserve: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
