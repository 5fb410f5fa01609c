"""A `wavserve serve` whose plans cost almost nothing: a fake backend answers instead of the models.

It takes the arguments of `wavserve serve` and runs in one process (`backend.kind=local`). The models are loaded and
stay idle. What it takes of the processor is the gateway's work.
"""

from __future__ import annotations

import argparse
import asyncio

from wavserve.app.policy_bundle import open_bundle
from wavserve.app.serve import serve
from wavserve.app.settings import Settings
from wavserve.backends.base import Backend
from wavserve.backends.fake import FakeBackend
from wavserve.commands import configuration
from wavserve.models.arena.book import ArenaBook


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    configuration.add_settings_arguments(parser)
    settings = configuration.load(parser.parse_args()).settings
    asyncio.run(serve(settings, wrap_backend=lambda models: fake(settings)))


def fake(settings: Settings) -> Backend:
    """A fake backend for the policy of the settings, with an arena of the same size as the models'."""
    book = ArenaBook(settings.arena.num_slots, settings.arena.lease_s)
    return FakeBackend(open_bundle(settings.bundle).spec, book)


if __name__ == "__main__":
    main()
