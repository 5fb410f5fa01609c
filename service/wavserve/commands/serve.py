"""`wavserve serve`: reads the settings and runs the service until a signal stops it.

Knows nothing of the service: `app` assembles it.
"""

from __future__ import annotations

import argparse
import asyncio

from wavserve.commands import configuration


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`wavserve serve`."""
    serve = commands.add_parser("serve", help="run the service", description="Run the service until a signal stops it.")
    configuration.add_settings_arguments(serve)
    serve.set_defaults(run=_serve)


def _serve(args: argparse.Namespace) -> int:
    settings = configuration.load(args).settings  # reports wrong settings before torch is imported
    from wavserve.app.serve import serve

    asyncio.run(serve(settings))
    return 0
