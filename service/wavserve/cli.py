"""The command line: `wavserve serve | plan | libero | piper | watch | bundle | train | parity | config`.

Parses the arguments, runs one command, and turns errors into one line and an exit code: 0 success, 1 failure, 2 wrong
usage, 130 interrupt, 141 broken pipe (the last two as in a shell). Imports the commands' modules but not the code
that they run, so that `wavserve plan` needs neither torch nor the server's packages.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from wavserve.app import environment
from wavserve.commands import bundle, configuration, libero, parity, piper, plan, serve, train, watch
from wavserve.core.errors import WavserveError

_COMMANDS = (serve, plan, libero, piper, watch, bundle, train, parity, configuration)
_DESCRIPTION = "Serve a World-Value-Action policy, or request plans from one."


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code. `argv` None: this process's arguments."""
    args = build_parser().parse_args(argv)
    environment.pin_libraries()
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except WavserveError as error:
        return _fail(_with_id(error))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == __package__:
            raise  # our own bug, not a missing extra
        extra = getattr(args, "extra", "server")
        return _fail(f"`wavserve {args.command}` needs {error.name}: run pip install '.[{extra}]' in the source folder")
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader closed the pipe; without this, the flush at interpreter exit fails too
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:  # noqa: BLE001  # our own bug
        return _fail(f"an internal error; the traceback is above, under {_log_internal(error)}")
    return code


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command. `args.run` is the function of the chosen command."""
    parser = argparse.ArgumentParser(prog="wavserve", description=_DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"wavserve {version('wavserve')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add(commands)
    return parser


def _with_id(error: WavserveError) -> str:
    """The message, and the id under which a server has logged the error, if it comes from one."""
    return error.message if error.error_id is None or error.error_id in error.message else f"{error} ({error.error_id})"


def _log_internal(error: Exception) -> str:
    """Logs an unexpected error with its traceback, as the edges do, and returns its id."""
    from wavserve.edge.report import internal

    return internal(error, "cli").error_id


def _fail(message: str) -> int:
    print(f"wavserve: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
