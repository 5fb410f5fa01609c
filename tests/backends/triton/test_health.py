"""The supervisor's decisions, on a server of a few lines: what it repairs, how, and when it starts the server again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from wavserve.backends.triton.client import About
from wavserve.backends.triton.health import Supervisor, WatchConfig
from wavserve.core.errors import BundleError, ModelDown
from wavserve.core.verbs import MODELS

NOBODY = (2**22 + 1, 1)
"""No process has this number: it is above the kernel's largest."""
CONFIG = WatchConfig(canary_s=0.005, hang_s=1.0, load_s=1.0, max_repairs=3)


class FakeTriton:
    """Backend and server in one: models that are there or not, loads that work or not."""

    def __init__(self, device: str = "cpu") -> None:
        self.there = dict.fromkeys(MODELS, False)
        self.digest = "d" * 64
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
        return About(model, self.digest, self._device, "float32", NOBODY, {}, arena)

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


Scenario = Callable[[Supervisor, FakeTriton, list[tuple[str, bool]]], Coroutine[Any, Any, None]]


def supervised(scenario: Scenario, *, owned: bool = True, device: str = "cpu") -> FakeTriton:
    made: list[FakeTriton] = []

    async def main() -> None:
        triton = FakeTriton(device)
        made.append(triton)
        changes: list[tuple[str, bool]] = []
        server = triton if owned else None
        supervisor = Supervisor("here", triton, CONFIG, server, lambda *told: changes.append(told))  # type: ignore[arg-type]
        if not owned:
            triton.there = dict.fromkeys(MODELS, True)
        await supervisor.start()
        assert supervisor.up
        triton.calls.clear()
        changes.clear()
        try:
            async with asyncio.timeout(20):
                await scenario(supervisor, triton, changes)
        finally:
            await supervisor.close()

    asyncio.run(main())
    return made[0]


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - the condition is nobody's event
        await asyncio.sleep(0.001)


def test_a_model_that_is_gone_is_loaded_again_and_no_other() -> None:
    async def scenario(supervisor: Supervisor, triton: FakeTriton, changes: list[tuple[str, bool]]) -> None:
        triton.there["value_dit"] = False
        await until(lambda: bool(changes))
        await until(lambda: supervisor.up)
        assert triton.calls[:3] == ["give up value_dit", "unload value_dit", "load value_dit"]
        assert not any("load" in call for call in triton.calls[3:])
        assert changes == [("value_dit", False), ("value_dit", True)]

    supervised(scenario)
    supervised(scenario, owned=False)


def test_a_call_that_finds_a_model_gone_makes_it_unready_at_once() -> None:
    async def scenario(supervisor: Supervisor, triton: FakeTriton, changes: list[tuple[str, bool]]) -> None:
        supervisor.report("encoder")
        assert not supervisor.up  # before anything could run
        await until(lambda: supervisor.up)
        assert triton.calls == []  # it was there all the same

    supervised(scenario)


def test_on_cuda_the_readers_are_loaded_again_with_the_arenas_owner() -> None:
    async def scenario(supervisor: Supervisor, triton: FakeTriton, changes: list[tuple[str, bool]]) -> None:
        triton.there["video_dit"] = False
        await until(lambda: bool(changes))
        await until(lambda: supervisor.up)
        loads = {call for call in triton.calls if call.startswith("load")}
        assert loads == {"load video_dit", "load value_dit", "load action_dit"}
        triton.calls.clear()
        changes.clear()
        triton.there["value_dit"] = False
        await until(lambda: bool(changes))
        await until(lambda: supervisor.up)
        assert [call for call in triton.calls if call.startswith("load")] == ["load value_dit"]

    supervised(scenario, device="cuda")


def test_a_server_of_ours_is_started_again_when_repairs_do_not_help() -> None:
    async def scenario(supervisor: Supervisor, triton: FakeTriton, changes: list[tuple[str, bool]]) -> None:
        triton.broken.add("action_dit")
        triton.there["action_dit"] = False
        await until(lambda: "kill" in triton.calls)
        before = triton.calls[: triton.calls.index("kill")]
        assert before.count("load action_dit") == CONFIG.max_repairs
        triton.broken.clear()
        await until(lambda: supervisor.up)
        assert "reconnect somewhere" in triton.calls
        assert all(triton.there[model] for model in MODELS)

    supervised(scenario)


def test_a_foreign_server_is_repaired_without_end_and_never_killed() -> None:
    async def scenario(supervisor: Supervisor, triton: FakeTriton, changes: list[tuple[str, bool]]) -> None:
        triton.broken.add("action_dit")
        triton.there["action_dit"] = False
        await until(lambda: triton.calls.count("load action_dit") > CONFIG.max_repairs + 1)
        assert not supervisor.up
        triton.broken.clear()
        await until(lambda: supervisor.up)
        assert "kill" not in triton.calls

    supervised(scenario, owned=False)


def test_a_server_that_ends_is_started_again_with_all_its_models() -> None:
    async def scenario(supervisor: Supervisor, triton: FakeTriton, changes: list[tuple[str, bool]]) -> None:
        triton.kill()
        await until(lambda: bool(changes))
        await until(lambda: supervisor.up)
        assert {call for call in triton.calls if call.startswith("load")} >= {f"load {model}" for model in MODELS}

    supervised(scenario)


def test_a_server_whose_models_do_not_load_is_tried_again() -> None:
    async def scenario(supervisor: Supervisor, triton: FakeTriton, changes: list[tuple[str, bool]]) -> None:
        triton.broken.add("encoder")
        triton.kill()
        await until(lambda: triton.calls.count("reconnect somewhere") >= 2)
        assert not supervisor.up
        triton.broken.clear()
        await until(lambda: supervisor.up)

    supervised(scenario)


def test_a_policy_changed_under_the_models_is_noticed() -> None:
    async def scenario(supervisor: Supervisor, triton: FakeTriton, changes: list[tuple[str, bool]]) -> None:
        supervisor.expect("d" * 64, 1)
        assert not supervisor.serves_wrong_policy
        triton.digest = "e" * 64
        await until(lambda: supervisor.serves_wrong_policy)
        assert supervisor.up  # they work; they are only not ours

    supervised(scenario)


def test_an_endpoint_of_another_policy_that_is_gone_keeps_nobody_from_planning() -> None:
    async def scenario(supervisor: Supervisor, triton: FakeTriton, changes: list[tuple[str, bool]]) -> None:
        supervisor.expect("e" * 64, 1)
        assert supervisor.serves_wrong_policy
        triton.broken = set(MODELS)
        triton.there = dict.fromkeys(MODELS, False)
        await until(lambda: not supervisor.serves_wrong_policy)
        assert not supervisor.up

    supervised(scenario, owned=False)


def test_whatever_goes_wrong_models_are_watched_on() -> None:
    async def scenario(supervisor: Supervisor, triton: FakeTriton, changes: list[tuple[str, bool]]) -> None:
        triton.trouble = [OSError("too many open files") for _ in MODELS]
        await until(lambda: not triton.trouble)
        await until(lambda: supervisor.up)
        triton.there["value_dit"] = False
        await until(lambda: "load value_dit" in triton.calls)
        await until(lambda: supervisor.up)

    supervised(scenario)


def test_a_server_that_cannot_even_be_started_is_tried_again() -> None:
    async def scenario(supervisor: Supervisor, triton: FakeTriton, changes: list[tuple[str, bool]]) -> None:
        triton.kill()
        triton.trouble = [OSError("no memory")]
        await until(lambda: "reconnect somewhere" in triton.calls)
        await until(lambda: supervisor.up)

    supervised(scenario)


@pytest.mark.parametrize("turns", range(6))
def test_closing_ends_also_whoever_is_just_told_something(turns: int) -> None:
    async def main() -> None:
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

    asyncio.run(main())


def test_an_arena_that_no_slice_fits_is_noticed() -> None:
    """Started again with fewer slots, a Triton would keep a plan waiting for ever."""

    async def scenario(supervisor: Supervisor, triton: FakeTriton, changes: list[tuple[str, bool]]) -> None:
        supervisor.expect("d" * 64, 8)
        assert supervisor.fits
        assert supervisor.num_slots == 8
        triton.slots = 7
        await until(lambda: not supervisor.fits)

    supervised(scenario)
