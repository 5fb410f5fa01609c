"""A `wavserve serve` with a slow backend: every backend call takes longer by a fixed time.

It takes `--slow-ms` and the arguments of `wavserve serve`.
"""

from __future__ import annotations

import argparse
import asyncio
import math
from dataclasses import dataclass

from wavserve.app.serve import serve
from wavserve.backends.base import Backend
from wavserve.commands import configuration
from wavserve.core.types import Tensors


@dataclass(frozen=True, slots=True)
class SlowBackend:
    """A backend that waits before every call. Calls wait in parallel, as on a slow network."""

    backend: Backend
    wait_s: float

    async def run(self, verb: str, inputs: Tensors, deadline: float = math.inf) -> Tensors:
        await asyncio.sleep(self.wait_s)
        return await self.backend.run(verb, inputs, deadline)

    async def close(self) -> None:
        await self.backend.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slow-ms", type=float, required=True, help="milliseconds added to every backend call")
    configuration.add_settings_arguments(parser)
    args = parser.parse_args()
    settings = configuration.load(args).settings
    asyncio.run(serve(settings, wrap_backend=lambda backend: SlowBackend(backend, args.slow_ms / 1e3)))


if __name__ == "__main__":
    main()
