"""The supervisor's decisions, on a server of a few lines: what it repairs, how, and when it starts the server again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest

from wavserve.backends.triton.client import About
from wavserve.backends.triton.health import Supervisor, WatchConfig
from wavserve.core.errors import BundleError, ModelDown
from wavserve.core.verbs import MODELS, fingerprints

NOBODY = (2**22 + 1, 1)
"""No process has this number: it is above the kernel's largest."""
CONFIG = WatchConfig(canary_s=0.005, hang_s=1.0, load_s=1.0, max_repairs=3)


class FakeTriton:
    """Backend and server in one: models that are there or not, loads that work or not."""

    def __init__(self, device: str = "cpu") -> None:
        self.there = dict.fromkeys(MODELS, False)
        self.digest = "d" * 64
        self.verbs: dict[str, str] = {}
        """fingerprints of another version's verbs; none: the gateway's own"""
        self.broken: set[str] = set()
        self.trouble: list[Exception] = []
        """what the next calls of `describe` and `start` raise"""
        self.slots = 8
        self.calls: list[str] = []
        self.on_down: Callable[[str], None] = lambda model: None
        self.running = False
        self._device = device
        self._ended = asyncio.Event()

    async def describe(self, model: str, timeout_s: float) -> About:
        self._stumble()
        if not self.there[model]:
            self.on_down(model)
            raise ModelDown(model)
        arena = {"used": 0, "slots": self.slots} if model == "video_dit" else None
        return About(model, self.digest, self._device, "float32", NOBODY, {}, arena, self.verbs or fingerprints(model))

    async def load(self, model: str, timeout_s: float) -> None:
        self.calls.append(f"load {model}")
        await asyncio.sleep(0)
        if model in self.broken:
            raise BundleError(f"{model}: broken")
        self.there[model] = True

    async def unload(self, model: str, timeout_s: float) -> None:
        self.calls.append(f"unload {model}")
        self.there[model] = False

    def give_up(self, model: str) -> None:
        self.calls.append(f"give up {model}")

    async def reconnect(self, url: str) -> None:
        self.calls.append(f"reconnect {url}")

    def _stumble(self) -> None:
        if self.trouble:
            raise self.trouble.pop()

    async def start(self) -> str:
        self._stumble()
        self.running, self.there = True, dict.fromkeys(MODELS, False)
        self._ended.clear()
        return "somewhere"

    async def wait(self) -> int:
        await self._ended.wait()
        return -9

    def kill(self) -> None:
        self.calls.append("kill")
        self.running, self.there = False, dict.fromkeys(MODELS, False)
        self._ended.set()

    async def stop(self) -> None:
        self.kill()

    def remove_unused(self) -> None:
        self.calls.append("remove unused")


@dataclass(frozen=True)
class Watched:
    """A supervisor that is up, the server it watches, and the changes it reported since."""

    supervisor: Supervisor
    triton: FakeTriton
    changes: list[tuple[str, bool]]


@asynccontextmanager
async def watched(*, is_owned: bool = True, device: str = "cpu") -> AsyncIterator[Watched]:
    triton = FakeTriton(device)
    changes: list[tuple[str, bool]] = []
    server = triton if is_owned else None
    supervisor = Supervisor("here", triton, CONFIG, server, lambda *change: changes.append(change))  # type: ignore[arg-type]
    if not is_owned:
        triton.there = dict.fromkeys(MODELS, True)
    await supervisor.start()
    assert supervisor.up
    triton.calls.clear()
    changes.clear()
    try:
        yield Watched(supervisor, triton, changes)
    finally:
        await supervisor.close()


@pytest.fixture
async def owned() -> AsyncIterator[Watched]:
    """The server is the supervisor's child."""
    async with watched() as own:
        yield own


@pytest.fixture
async def foreign() -> AsyncIterator[Watched]:
    """Another process started the server."""
    async with watched(is_owned=False) as other:
        yield other


@pytest.fixture
async def on_cuda() -> AsyncIterator[Watched]:
    async with watched(device="cuda") as own:
        yield own


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the condition is nobody's event
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("is_owned", [True, False])
async def test_a_model_that_is_gone_is_loaded_again_and_no_other(is_owned: bool) -> None:
    async with watched(is_owned=is_owned) as either:
        either.triton.there["value_dit"] = False
        await until(lambda: bool(either.changes))
        await until(lambda: either.supervisor.up)
        assert either.triton.calls[:3] == ["give up value_dit", "unload value_dit", "load value_dit"]
        assert not any("load" in call for call in either.triton.calls[3:])
        assert either.changes == [("value_dit", False), ("value_dit", True)]


async def test_a_call_that_finds_a_model_gone_makes_it_unready_at_once(owned: Watched) -> None:
    owned.supervisor.report("encoder")
    assert not owned.supervisor.up  # before anything could run
    await until(lambda: owned.supervisor.up)
    assert owned.triton.calls == []  # it was there all the same


async def test_on_cuda_the_readers_are_loaded_again_with_the_arenas_owner(on_cuda: Watched) -> None:
    on_cuda.triton.there["video_dit"] = False
    await until(lambda: bool(on_cuda.changes))
    await until(lambda: on_cuda.supervisor.up)
    loads = {call for call in on_cuda.triton.calls if call.startswith("load")}
    assert loads == {"load video_dit", "load value_dit", "load action_dit"}
    on_cuda.triton.calls.clear()
    on_cuda.changes.clear()
    on_cuda.triton.there["value_dit"] = False
    await until(lambda: bool(on_cuda.changes))
    await until(lambda: on_cuda.supervisor.up)
    assert [call for call in on_cuda.triton.calls if call.startswith("load")] == ["load value_dit"]


async def test_a_server_of_ours_is_started_again_when_repairs_do_not_help(owned: Watched) -> None:
    owned.triton.broken.add("action_dit")
    owned.triton.there["action_dit"] = False
    await until(lambda: "kill" in owned.triton.calls)
    before = owned.triton.calls[: owned.triton.calls.index("kill")]
    assert before.count("load action_dit") == CONFIG.max_repairs
    owned.triton.broken.clear()
    await until(lambda: owned.supervisor.up)
    assert "reconnect somewhere" in owned.triton.calls
    assert all(owned.triton.there[model] for model in MODELS)


async def test_a_foreign_server_is_repaired_without_end_and_never_killed(foreign: Watched) -> None:
    foreign.triton.broken.add("action_dit")
    foreign.triton.there["action_dit"] = False
    await until(lambda: foreign.triton.calls.count("load action_dit") > CONFIG.max_repairs + 1)
    assert not foreign.supervisor.up
    foreign.triton.broken.clear()
    await until(lambda: foreign.supervisor.up)
    assert "kill" not in foreign.triton.calls


async def test_a_server_that_ends_is_started_again_with_all_its_models(owned: Watched) -> None:
    owned.triton.kill()
    await until(lambda: bool(owned.changes))
    await until(lambda: owned.supervisor.up)
    assert {call for call in owned.triton.calls if call.startswith("load")} >= {f"load {model}" for model in MODELS}


async def test_a_server_whose_models_do_not_load_is_tried_again(owned: Watched) -> None:
    owned.triton.broken.add("encoder")
    owned.triton.kill()
    await until(lambda: owned.triton.calls.count("reconnect somewhere") >= 2)
    assert not owned.supervisor.up
    owned.triton.broken.clear()
    await until(lambda: owned.supervisor.up)


async def test_a_policy_changed_under_the_models_is_noticed(owned: Watched) -> None:
    owned.supervisor.expect("d" * 64, 1)
    assert not owned.supervisor.serves_wrong_policy
    owned.triton.digest = "e" * 64
    await until(lambda: owned.supervisor.serves_wrong_policy)
    assert owned.supervisor.up  # they work; they are only not ours


async def test_a_model_with_other_verbs_is_not_used(owned: Watched, caplog: pytest.LogCaptureFixture) -> None:
    owned.triton.verbs = {"imagine": "of another version"}
    await until(lambda: len(owned.changes) == len(MODELS))
    assert not owned.supervisor.up
    assert "run the same version of wavserve on both" in caplog.text
    owned.triton.verbs = {}
    await until(lambda: owned.supervisor.up)


async def test_an_endpoint_of_another_policy_that_is_gone_keeps_nobody_from_planning(foreign: Watched) -> None:
    foreign.supervisor.expect("e" * 64, 1)
    assert foreign.supervisor.serves_wrong_policy
    foreign.triton.broken = set(MODELS)
    foreign.triton.there = dict.fromkeys(MODELS, False)
    await until(lambda: not foreign.supervisor.serves_wrong_policy)
    assert not foreign.supervisor.up


async def test_whatever_goes_wrong_models_are_watched_on(owned: Watched) -> None:
    owned.triton.trouble = [OSError("too many open files") for _ in MODELS]
    await until(lambda: not owned.triton.trouble)
    await until(lambda: owned.supervisor.up)
    owned.triton.there["value_dit"] = False
    await until(lambda: "load value_dit" in owned.triton.calls)
    await until(lambda: owned.supervisor.up)


async def test_a_server_that_cannot_even_be_started_is_tried_again(owned: Watched) -> None:
    owned.triton.kill()
    owned.triton.trouble = [OSError("no memory")]
    await until(lambda: "reconnect somewhere" in owned.triton.calls)
    await until(lambda: owned.supervisor.up)


@pytest.mark.parametrize("turns", range(6))
async def test_closing_ends_also_whoever_is_just_told_something(turns: int) -> None:
    triton = FakeTriton()
    supervisor = Supervisor("here", triton, replace(CONFIG, canary_s=60.0), triton)  # type: ignore[arg-type]
    await supervisor.start()
    await asyncio.sleep(0.01)
    for model in MODELS:
        supervisor.report(model)
    for _ in range(turns):
        await asyncio.sleep(0)
    async with asyncio.timeout(20):
        await supervisor.close()


async def test_an_arena_that_no_slice_fits_is_noticed(owned: Watched) -> None:
    """Started again with fewer slots, a Triton would keep a plan waiting for ever."""
    owned.supervisor.expect("d" * 64, 8)
    assert owned.supervisor.fits
    assert owned.supervisor.num_slots == 8
    owned.triton.slots = 7
    await until(lambda: not owned.supervisor.fits)
