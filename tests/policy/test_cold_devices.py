"""Devices that come up late or come back with new models: a warm-up plan runs on them before they count."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import numpy as np
import pytest

from tests.clock import yield_to_loop
from tests.planning.rig import RigOptions, example_backend, example_device, example_spec
from tests.policy.requests import first, placed
from wavserve.backends.fake import FakeBackend
from wavserve.core.errors import BackendError, NotReady
from wavserve.planning.device import Device, Health
from wavserve.policy.parts import PolicyParts
from wavserve.policy.placement import Placement
from wavserve.policy.policy import Policy
from wavserve.policy.sessions import MemorySessions
from wavserve.system.processes import Process


class Endpoint:
    """A device whose health and models a test replaces."""

    def __init__(self) -> None:
        options = RigOptions()
        self.backend: FakeBackend = example_backend(options)
        self.device: Device = example_device(self.backend, options)
        self.health, self.generation = Health.DOWN, 0
        self.device.health = lambda: self.health
        self.device.generation = lambda: ("process", self.generation)
        self.device.batcher.stuck_calls.process_of = lambda model: Process(2**22 + 1, self.generation)

    @property
    def has_estimates(self) -> bool:
        return self.device.planner.forecast.least_s(example_spec().planner, 0) > 0


class Service:
    """A policy over two endpoints. The first is up."""

    def __init__(self) -> None:
        self.endpoints = [Endpoint(), Endpoint()]
        self.endpoints[0].health = Health.UP
        self.changed = asyncio.Event()
        devices = [endpoint.device for endpoint in self.endpoints]
        self.placement = Placement(devices, wait_s=5.0, changed=self.changed)
        self.deaths: list[str] = []
        sessions = MemorySessions(60.0, 4)
        parts = PolicyParts(example_spec(), "fake", self.placement, sessions, 16, "0", on_death=self.deaths.append)
        self.policy = Policy(parts)

    def comes_up(self, endpoint: Endpoint, generation: int = 0) -> None:
        endpoint.health, endpoint.generation = Health.UP, generation
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():  # noqa: ASYNC110 - a state is polled, and has no event
            await asyncio.sleep(0.01)


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    service = Service()
    for endpoint in service.endpoints:
        endpoint.device.batcher.start()
    yield service
    await service.policy.drain(0.0)
    for endpoint in service.endpoints:
        await endpoint.device.batcher.close()


async def held(go_on: asyncio.Event) -> Callable[[str], Awaitable[None]]:
    async def hold(verb: str) -> None:
        await go_on.wait()

    return hold


async def test_an_endpoint_that_comes_up_late_is_warmed_before_it_gets_plans(service: Service) -> None:
    early, late = service.endpoints
    await service.policy.warm_up()
    assert not late.backend.calls
    go_on = asyncio.Event()
    late.backend.before = await held(go_on)
    service.comes_up(late)
    await yield_to_loop()
    assert service.policy.ready
    assert late.device.state is Health.COLD
    async with placed(service.placement) as one, placed(service.placement) as other:
        assert one is other is early.device  # a cold device has no load, and is not looked at
    go_on.set()
    await service.until(lambda: late.device.state is Health.UP)
    assert {verb for verb, _, _ in late.backend.calls} >= {"encode_images", "imagine", "score", "decode"}
    assert late.has_estimates
    async with placed(service.placement) as one, placed(service.placement) as other:
        assert {id(one), id(other)} == {id(early.device), id(late.device)}


async def test_new_models_are_warmed_again_and_plans_wait_for_it(service: Service) -> None:
    early, _ = service.endpoints
    await service.policy.warm_up()
    calls = len(early.backend.calls)
    early.health = Health.DOWN
    go_on = asyncio.Event()
    early.backend.before = await held(go_on)
    service.comes_up(early, generation=1)
    assert not service.policy.ready
    with pytest.raises(NotReady):
        await service.policy.plan(first())
    placing = asyncio.ensure_future(placed(service.placement).__aenter__())
    await yield_to_loop()
    assert not placing.done()
    go_on.set()
    assert await placing is early.device
    assert len(early.backend.calls) > calls
    assert service.policy.ready


async def test_models_that_were_away_and_are_the_same_need_no_warm_up(service: Service) -> None:
    early, _ = service.endpoints
    await service.policy.warm_up()
    calls = len(early.backend.calls)
    early.health = Health.DOWN
    service.comes_up(early)
    assert service.policy.ready
    await yield_to_loop()
    assert len(early.backend.calls) == calls


async def test_a_warm_up_that_fails_is_tried_again(service: Service) -> None:
    _, late = service.endpoints
    await service.policy.warm_up()
    attempts = 0

    async def fail_once(verb: str) -> None:
        nonlocal attempts
        if verb == "decode":
            attempts += 1
            if attempts == 1:
                raise BackendError("not yet")

    late.backend.before = fail_once
    service.comes_up(late)
    await service.until(lambda: attempts == 1)
    await yield_to_loop()
    assert late.device.state is Health.COLD
    await service.until(lambda: late.device.state is Health.UP)
    assert late.has_estimates


async def test_models_that_are_replaced_during_the_warm_up_stay_cold(service: Service) -> None:
    _, late = service.endpoints
    await service.policy.warm_up()
    go_on = asyncio.Event()
    late.backend.before = await held(go_on)
    service.comes_up(late)
    await yield_to_loop()
    late.generation = 1
    calls = len(late.backend.calls)
    go_on.set()
    await service.until(lambda: late.device.state is Health.UP)
    assert [verb for verb, _, _ in late.backend.calls[calls:]].count("encode_images") == 10  # five plans, twice


async def test_one_endpoint_that_fails_at_the_start_does_not_stop_the_service(service: Service) -> None:
    early, late = service.endpoints
    broken = True

    async def fail(verb: str) -> None:
        if broken:
            raise BackendError("broken")

    early.backend.before = fail
    late.health = Health.UP
    await service.policy.warm_up()
    assert service.policy.ready
    assert service.placement.choices() == (late.device,)
    broken = False
    await service.until(lambda: early.device.state is Health.UP)


async def test_a_warm_up_that_fails_everywhere_is_the_error_of_the_start(service: Service) -> None:
    async def fail(verb: str) -> None:
        raise BackendError("broken")

    for endpoint in service.endpoints:
        endpoint.backend.before = fail
    with pytest.raises(BackendError, match="broken"):
        await service.policy.warm_up()
    assert not service.policy.ready


@pytest.mark.parametrize("verb", ["encode_images", "imagine", "score", "decode"])
async def test_the_first_calls_of_new_models_may_be_slow(service: Service, verb: str) -> None:
    """The predictions come from the models before them."""
    early, _ = service.endpoints
    await service.policy.warm_up()
    await service.policy.plan(first())
    begun, go_on, stuck = asyncio.Event(), asyncio.Event(), list[str]()
    early.device.batcher.on_stuck = stuck.append

    async def load_something(called: str) -> None:
        if called == verb:
            begun.set()
            await go_on.wait()

    early.backend.before = load_something
    service.comes_up(early, generation=1)
    await begun.wait()
    early.device.batcher.judge_calls(1000.0)
    assert not stuck
    go_on.set()
    async with asyncio.timeout(20):
        await service.until(lambda: early.device.state is Health.UP)
    await service.policy.plan(first())


async def test_a_plan_whose_call_stands_still_is_made_on_another_device_that_is_up(service: Service) -> None:
    early, late = service.endpoints
    late.health = Health.UP
    await service.policy.warm_up()
    undisturbed = await service.policy.plan(first())
    hanging, forever = asyncio.Event(), asyncio.Event()

    async def hang(called: str) -> None:
        if called == "score":
            hanging.set()
            await forever.wait()

    def goes_down(model: str) -> None:
        early.health = Health.DOWN

    early.backend.before, early.device.batcher.on_stuck = hang, goes_down
    planning = asyncio.ensure_future(service.policy.plan(first()))
    await hanging.wait()
    early.device.batcher.judge_calls(1e9)
    np.testing.assert_array_equal((await planning).actions, undisturbed.actions)
    assert late.backend.calls


async def test_the_death_of_what_keeps_devices_warm_is_told(service: Service) -> None:
    """Else no device that comes up later would ever get a plan, and nobody would know."""
    await service.policy.warm_up()

    def broken() -> Health:
        raise ZeroDivisionError("a bug")

    service.endpoints[1].device.health = broken
    service.changed.set()
    async with asyncio.timeout(10):
        await service.until(lambda: service.deaths == ["the warm-up of devices"])
    service.endpoints[1].device.health = lambda: Health.DOWN
