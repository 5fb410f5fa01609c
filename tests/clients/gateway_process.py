"""A gateway in a process of its own: the real edges and policy over a fake backend, with its sessions in a Redis.

Usage: python -m tests.clients.gateway_process --http-port N --grpc-port N --redis URL [--call-s S]
It drains as `wavserve serve` does, at SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import socket

from redis import asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tests.edge.grpc.control.links import LIMITS
from tests.planning.rig import RigOptions, rigged
from wavserve.app.ending import Ending
from wavserve.edge.compat.tables import CompatConfig
from wavserve.edge.frontend import Frontend
from wavserve.edge.grpc.control.robots import Robots
from wavserve.edge.grpc.plan import create_grpc_server
from wavserve.edge.http.api import create_http_app
from wavserve.edge.http.open_connections import ConnectionLimits
from wavserve.edge.http.server import create_http_server
from wavserve.edge.websocket.openpi import OpenpiEndpoint
from wavserve.policy.policy import Policy
from wavserve.policy.redis_sessions import RedisSessions
from wavserve.system.telemetry import Metrics

DRAIN_S = 20.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--http-port", type=int, required=True)
    parser.add_argument("--grpc-port", type=int, required=True)
    parser.add_argument("--redis", required=True, help="URL")
    parser.add_argument("--call-s", type=float, default=0.0, help="seconds that each call of a model takes")
    asyncio.run(serve(parser.parse_args()))


async def serve(args: argparse.Namespace) -> None:
    async def before(_verb: str) -> None:
        await asyncio.sleep(args.call_s)

    client = aioredis.Redis.from_url(args.redis, socket_timeout=1.0, retry=Retry(NoBackoff(), 0))
    store = RedisSessions(client, ttl_s=600.0)
    ending = Ending()
    async with client, rigged(RigOptions(store=lambda _: store, before=before)) as rig:
        await serve_policy(rig.policy, args, ending)


async def serve_policy(policy: Policy, args: argparse.Namespace, ending: Ending) -> None:
    robots, metrics, compat = Robots(), Metrics(), CompatConfig(executed_steps=1)
    rpc = create_grpc_server(policy, LIMITS, metrics, robots=robots)
    rpc.add_insecure_port(f"127.0.0.1:{args.grpc_port}")
    await rpc.start()
    openpi = OpenpiEndpoint(Frontend(policy, LIMITS, metrics.plans.refused), compat, metrics)
    connections = ConnectionLimits(max_connections=64, max_per_address=64)
    http = create_http_server(create_http_app(policy, LIMITS, metrics, compat), connections, 5, openpi)
    listener = socket.create_server(("127.0.0.1", args.http_port))
    serving = asyncio.create_task(http.serve(sockets=[listener]))
    await ending.wait()
    robots.drain()
    await policy.drain(DRAIN_S)
    http.should_exit = True
    await asyncio.gather(rpc.stop(5.0), serving)


if __name__ == "__main__":
    main()
