"""What robots of a failover run use: one Redis, and gateways with a Triton each. Starts, kills and restores its parts.

Every call blocks. Knows no robots.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import psutil

from loadtest.processes import alive, below, models_of, triton_of
from loadtest.redis_server import RedisServer, redis_server
from wavserve.core.verbs import MODELS
from wavserve.system import serve_process
from wavserve.system.processes import free_ports
from wavserve.system.serve_process import Child

Kind = Literal["gateway", "triton", "model", "redis"]
NUM_GATEWAYS = 2
WHOLE_WITHIN_S = 120.0
"""Time limit of a repair. A model is back within seconds on a machine that is not busy."""
MAX_REDIS_DOWN_S = 1.0
GATEWAY_DOWN_S = 5.0
"""How long a killed gateway is gone before it is started again. Its start takes processor time from the other one: what
robots see until then is the failover alone."""
REPAIR_S = 1.0
"""How long a gateway's plans wait for its models: not long, because another gateway has some."""
POLL_S = 0.2


@dataclass(slots=True, eq=False)
class Gateway:
    """A gateway with the embedded Triton, on ports that it keeps when it is started again."""

    number: int
    folder: Path
    arguments: Sequence[str]
    ports: tuple[int, int]
    num_starts: int = 0
    child: Child | None = None

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self.ports[1]}"

    @property
    def records(self) -> Path:
        """The folder of its recorded plans."""
        return self.folder / f"records-{self.number}"

    @property
    def pid(self) -> int:
        assert self.child is not None, "it was started"
        return self.child.process.pid

    def start(self) -> None:
        """Returns once it is ready."""
        self.num_starts += 1
        log = self.folder / f"gateway-{self.number}-{self.num_starts}.log"
        arguments = [*self.arguments, "--record", str(self.records)]
        self.child = serve_process.start(log, arguments, ports=self.ports)

    def stop(self) -> None:
        if self.child is not None:
            self.child.stop()

    def killed(self) -> None:
        """Ends it without a chance to say goodbye. Its Triton must notice by itself."""
        assert self.child is not None, "it was started"
        left = below(self.pid)
        self.child.process.kill()
        self.child.process.wait()
        _until(lambda: not any(map(alive, left)), "the processes of a dead gateway exit")

    def has(self, model: str, old: psutil.Process) -> bool:
        """Whether another process has taken the place of `old`, and the gateway takes plans again."""
        return models_of(self.pid).get(model, old) != old and self.child is not None and self.child.is_ready()


@dataclass(slots=True, eq=False)
class Site:
    """The running parts. `kill` takes one away, and returns what it was and how to bring it back."""

    redis: RedisServer
    gateways: Sequence[Gateway]

    def kill(self, kind: Kind, draw: random.Random) -> tuple[str, Callable[[], None]]:
        """Kills one part with SIGKILL."""
        if kind == "redis":
            down_s = draw.uniform(0.0, MAX_REDIS_DOWN_S)
            self.redis.stop()
            return "redis", lambda: self._start_redis(down_s)
        gateway = draw.choice(self.gateways)
        if kind == "gateway":
            gateway.killed()
            return f"gateway {gateway.number}", partial(_start_later, gateway)
        model = draw.choice(MODELS)
        old = models_of(gateway.pid)[model]
        victim = old if kind == "model" else triton_of(gateway.pid)
        victim.kill()
        what = f"{model if kind == 'model' else 'triton'} of gateway {gateway.number}"
        return what, lambda: _until(lambda: gateway.has(model, old), f"{what} is replaced")

    def _start_redis(self, down_s: float) -> None:
        time.sleep(down_s)
        self.redis.start()


@contextlib.contextmanager
def running_site(folder: Path, arguments: Sequence[str]) -> Iterator[Site]:
    """A site that runs until the block ends. `arguments`: of each gateway's `wavserve serve`."""
    with redis_server() as redis:
        settings = (f"sessions.url={redis.url}", f"limits.repair_s={REPAIR_S:g}")
        shared = [*(f"--set={each}" for each in settings), *arguments]
        ports = free_ports(2 * NUM_GATEWAYS)
        pairs = zip(ports[::2], ports[1::2], strict=True)
        gateways = [Gateway(number, folder, shared, pair) for number, pair in enumerate(pairs)]
        try:
            with ThreadPoolExecutor(NUM_GATEWAYS) as threads:
                list(threads.map(Gateway.start, gateways))
            yield Site(redis, gateways)
        finally:
            with ThreadPoolExecutor(NUM_GATEWAYS) as threads:
                list(threads.map(Gateway.stop, gateways))


def _start_later(gateway: Gateway) -> None:
    time.sleep(GATEWAY_DOWN_S)
    gateway.start()


def _until(condition: Callable[[], bool], what: str) -> None:
    """Raises TimeoutError when the condition does not hold in time."""
    give_up = time.monotonic() + WHOLE_WITHIN_S
    while not condition():
        if time.monotonic() > give_up:
            raise TimeoutError(f"not within {WHOLE_WITHIN_S:.0f} s: {what}")
        time.sleep(POLL_S)
