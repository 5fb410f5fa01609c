"""A `wavserve serve` whose plans cost almost nothing: a fake backend answers instead of the models.

It takes the arguments of `wavserve serve` and runs in one process (`backend.kind=local`). The models are loaded and
stay idle. What it takes of the processor is the gateway's work. `--without-metrics` shows what metrics take of it.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Any, cast

from wavserve.app.policy_bundle import open_bundle
from wavserve.app.serve import serve
from wavserve.app.settings import Settings
from wavserve.backends.base import Backend
from wavserve.backends.fake import FakeBackend
from wavserve.commands import configuration
from wavserve.models.arena.book import ArenaBook
from wavserve.system.telemetry import Metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    configuration.add_settings_arguments(parser)
    parser.add_argument("--without-metrics", action="store_true", help="metrics of plans, calls and streams do nothing")
    args = parser.parse_args()
    settings = configuration.load(args).settings
    metrics = SilentMetrics() if args.without_metrics else Metrics()
    asyncio.run(serve(settings, wrap_backend=lambda models: fake(settings), metrics=metrics))


def fake(settings: Settings) -> Backend:
    """A fake backend for the policy of the settings, with an arena of the same size as the models'."""
    book = ArenaBook(settings.arena.num_slots, settings.arena.lease_s)
    return FakeBackend(open_bundle(settings.bundle).spec, book)


class SilentMetrics(Metrics):
    """Metrics that do nothing, except those that cost a plan nothing: gauges, and the event loop's lag."""

    def __init__(self) -> None:
        super().__init__()
        self.plans = self.calls = self.control = cast(Any, _Silent())

    def observe_request(self, edge: str, outcome: str, seconds: float) -> None:
        pass


class _Silent:
    """Has every method, and each does nothing."""

    def __getattr__(self, name: str) -> Any:
        return _nothing


def _nothing(*_: object) -> None:
    pass


if __name__ == "__main__":
    main()
