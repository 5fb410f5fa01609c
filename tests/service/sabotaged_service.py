"""`wavserve serve` in which SIGUSR1 ends one task of the process, as a bug would.

Usage: python -m tests.service.sabotaged_service --victim NAME [the arguments of wavserve serve]
"""

from __future__ import annotations

import argparse
import asyncio
import signal

from wavserve.app.serve import serve
from wavserve.backends.base import Backend
from wavserve.commands import configuration


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--victim", required=True, help="the task's name")
    configuration.add_settings_arguments(parser)
    args = parser.parse_args()

    def armed(backend: Backend) -> Backend:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, end, args.victim)
        return backend

    asyncio.run(serve(configuration.load(args).settings, wrap_backend=armed))


def end(victim: str) -> None:
    [task] = [task for task in asyncio.all_tasks() if task.get_name() == victim]
    task.cancel()


if __name__ == "__main__":
    main()
