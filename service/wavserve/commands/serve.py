"""`wavserve serve`: the settings in, the service until a signal ends it.

Called by `cli`. Everything that runs is put together by `app`.
"""

from __future__ import annotations

import argparse
import asyncio

from wavserve.commands import configuration


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`wavserve serve`."""
    serve = commands.add_parser("serve", help="run the service")
    configuration.add_settings_arguments(serve)
    serve.set_defaults(run=_serve)


def _serve(args: argparse.Namespace) -> int:
    settings = configuration.load(args).settings  # wrong settings are told before torch is imported
    from wavserve.app.serve import serve

    asyncio.run(serve(settings))
    return 0
