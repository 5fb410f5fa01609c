"""A Triton of a few lines under a real supervisor, for tests of what the supervisor decides."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from wavserve.backends.triton.client import About
from wavserve.backends.triton.health import Supervisor, WatchConfig
from wavserve.core.errors import BundleError, DeadlineExceeded, ModelDown
from wavserve.core.verbs import ARENA_OWNER, MODELS, fingerprints
from wavserve.system.processes import Process

NOBODY = Process(2**22 + 1, 1)
"""No process has this pid: it is above the kernel's limit."""
CONFIG = WatchConfig(canary_s=0.005, hang_s=1.0, load_s=1.0, max_repairs=3)


class FakeTriton:
    """Backend and server in one. Tests decide which models are loaded and which loads fail."""

    def __init__(self, device: str = "cpu") -> None:
        self.loaded = dict.fromkeys(MODELS, False)
        self.digest = "d" * 64
        self.verbs: dict[str, Mapping[str, str]] = {}
        """verb tables by model, as another version has them; a missing model has the gateway's own"""
        self.broken: set[str] = set()
        self.dying: set[str] = set()
        """models whose process dies while they are loaded: Triton never answers"""
        self.failures: list[Exception] = []
        """what the next calls of `describe` and `start` raise"""
        self.golden_plan: bytes | ModelDown = ModelDown("no golden plan")
        """what it sends when it is asked for the golden plan"""
        self.golden_digest = ""
        self.slots = 8
        self.calls: list[str] = []
        self.num_described: Counter[str] = Counter()
        self.on_down: Callable[[str], None] = lambda model: None
        self.running = False
        self.idle, self.live, self.silent = True, True, False
        self.states: dict[str, str] = {}
        """what it says of models; of others READY, also where one does not answer"""
        self.load_s = 0.0
        """how long a load takes"""
        self.hanging: set[str] = set()
        """models that do not answer"""
        self.wedged: set[str] = set()
        """requests that Triton never ends, such as `load encoder`"""
        self.computed_by = NOBODY
        """the process of every model"""
        self.served_by: Process | None = None
        """the server's process"""
        self._device = device
        self._ended, self._child_died = asyncio.Event(), asyncio.Event()

    async def describe(self, model: str, timeout_s: float) -> About:
        self.num_described[model] += 1
        while model in self.hanging:  # noqa: ASYNC110 - a test ends it
            await asyncio.sleep(0.01)
        self._fail()
        if not self.loaded[model]:
            self.on_down(model)
            raise ModelDown(model)
        arena = {"used": 0, "slots": self.slots} if model == ARENA_OWNER else None
        verbs = dict(self.verbs.get(model, fingerprints(model)))
        golden = self.golden_digest if model == ARENA_OWNER else ""
        return About(model, self.digest, self._device, "float32", self.computed_by, {}, arena, verbs, golden)

    async def golden(self, timeout_s: float) -> bytes:
        if self.silent:
            await asyncio.sleep(timeout_s)
            raise DeadlineExceeded("no answer before the deadline")
        if isinstance(self.golden_plan, ModelDown):
            raise self.golden_plan
        return self.golden_plan

    async def load(self, model: str, timeout_s: float) -> None:
        self.calls.append(f"load {model}")
        self.states[model] = "LOADING"
        await asyncio.sleep(self.load_s)
        self.states.pop(model, None)
        await self._wedge(f"load {model}")
        if model in self.dying:
            self._child_died.set()
            await asyncio.Event().wait()
        if model in self.broken:
            raise BundleError(f"{model}: broken")
        self.loaded[model] = True
        self.hanging.discard(model)

    async def unload(self, model: str, timeout_s: float) -> None:
        self.calls.append(f"unload {model}")
        await self._wedge(f"unload {model}")
        self.loaded[model] = False

    def give_up(self, model: str, test_calls: bool = True) -> None:
        self.calls.append(f"give up {model}" if test_calls else f"give up {model}'s plans")

    async def state(self, model: str, timeout_s: float) -> str:
        return self.states.get(model, "READY")

    def is_idle(self) -> bool:
        return self.idle

    async def is_live(self, timeout_s: float) -> bool:
        while self.silent:  # noqa: ASYNC110 - a test ends it
            await asyncio.sleep(0.01)
        return self.live

    async def reconnect(self, url: str) -> None:
        self.calls.append(f"reconnect {url}")

    async def close(self) -> None:
        self.calls.append("close")

    async def _wedge(self, request: str) -> None:
        await asyncio.sleep(0)
        if request in self.wedged:
            await asyncio.Event().wait()

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop()

    async def start(self) -> str:
        self._fail()
        self.running, self.loaded = True, dict.fromkeys(MODELS, False)
        self._ended.clear()
        return "somewhere"

    async def wait(self) -> int:
        await self._ended.wait()
        return -9

    def kill(self) -> None:
        self.calls.append("kill")
        self.running, self.loaded = False, dict.fromkeys(MODELS, False)
        self._ended.set()

    async def child_death(self) -> str:
        await self._child_died.wait()
        self._child_died.clear()
        return "a model's process ended by signal 9"

    def tail(self) -> str:
        return "the end of the log"

    def process(self) -> Process | None:
        return self.served_by

    async def stop(self) -> None:
        self.kill()

    def remove_unused(self) -> None:
        self.calls.append("remove unused")


@dataclass(frozen=True)
class Watched:
    """A supervisor that is up, the server it watches, and the changes it has reported since."""

    supervisor: Supervisor
    triton: FakeTriton
    changes: list[tuple[str, bool]]


@asynccontextmanager
async def watched(
    *, is_owned: bool = True, device: str = "cpu", config: WatchConfig = CONFIG
) -> AsyncIterator[Watched]:
    triton = FakeTriton(device)
    changes: list[tuple[str, bool]] = []
    server = triton if is_owned else None
    supervisor = Supervisor("here", triton, config, server, lambda *change: changes.append(change))  # type: ignore[arg-type]
    if not is_owned:
        triton.loaded = dict.fromkeys(MODELS, True)
    await supervisor.start()
    assert supervisor.models.up
    triton.calls.clear()
    changes.clear()
    try:
        yield Watched(supervisor, triton, changes)
    finally:
        await supervisor.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the condition is nobody's event
            await asyncio.sleep(0.001)
