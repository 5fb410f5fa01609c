"""A baseline service that makes one plan at a time, behind the same edges as wavserve.

It takes `--path` and the arguments of `wavserve serve`. `plain` computes as the authors' code does. `fast` is the
service's own policy behind a lock.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from collections.abc import AsyncIterator

import uvicorn

from loadtest.bench.baselines import PlainPolicy, SerialPolicy
from wavserve.app.model_config import runner_config
from wavserve.app.policy_bundle import open_bundle
from wavserve.app.service import assemble
from wavserve.app.settings import Settings
from wavserve.bundle import bundle
from wavserve.commands import configuration
from wavserve.core.address import Address
from wavserve.edge.frontend import PolicyProtocol
from wavserve.edge.grpc.plan import create_grpc_server
from wavserve.edge.http.api import create_http_app
from wavserve.edge.limits import EdgeLimits
from wavserve.models.runners.loading import apply_threads
from wavserve.system.log_lines import configure_logging
from wavserve.system.telemetry import Metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--path", choices=("plain", "fast"), required=True, help="policy behind the lock")
    configuration.add_settings_arguments(parser)
    args = parser.parse_args()
    asyncio.run(serve(configuration.load(args).settings, args.path))


async def serve(settings: Settings, path: str) -> None:
    """Serves both edges over a serial policy until a signal."""
    configure_logging(settings.log.level, settings.log.format)
    limits = EdgeLimits(
        settings.limits.max_body_bytes, settings.limits.max_image_bytes, settings.limits.max_image_pixels
    )
    async with policy(settings, path) as planning:
        served, metrics = SerialPolicy(planning), Metrics()
        grpc = create_grpc_server(served, limits, metrics)
        grpc.add_insecure_port(str(Address(settings.grpc.host, settings.grpc.port)))
        await grpc.start()
        app = create_http_app(served, limits, metrics)  # for readiness only: plans arrive over gRPC
        config = uvicorn.Config(app, host=settings.http.host, port=settings.http.port, log_config=None, lifespan="off")
        await uvicorn.Server(config).serve()
        await grpc.stop(grace=5)


@contextlib.asynccontextmanager
async def policy(settings: Settings, path: str) -> AsyncIterator[PolicyProtocol]:
    """The policy behind the lock, warmed up."""
    if path == "fast":
        service = await assemble(settings)
        try:
            await service.policy.warm_up()
            yield service.policy
            await service.policy.drain(settings.limits.drain_s)
        finally:
            await service.close()
    else:
        opened = await asyncio.to_thread(open_bundle, settings.bundle)
        apply_threads(opened.spec, runner_config(settings))
        yield await asyncio.to_thread(PlainPolicy, opened, bundle.digest(opened.folder))


if __name__ == "__main__":
    main()
