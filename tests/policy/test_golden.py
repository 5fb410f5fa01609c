"""The check of the golden plan: the numbers, and what becomes of a device whose plans are wrong."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import numpy as np
import pytest

from tests.planning.rig import RigOptions, example_device, example_request, example_spec
from wavserve.backends.fake import FakeBackend
from wavserve.bundle.golden import Golden
from wavserve.core.errors import NotReady
from wavserve.core.spec import ActionKind, PolicySpec
from wavserve.core.types import Array, Tensors
from wavserve.models.arena.book import ArenaBook
from wavserve.planning.device import Device, Health
from wavserve.policy.golden import GoldenCheck
from wavserve.policy.parts import PolicyParts
from wavserve.policy.placement import Placement
from wavserve.policy.policy import Policy
from wavserve.policy.sessions import MemorySessions


def example_check(actions: Array, kind: ActionKind = "absolute", tolerance: float = 1e-4) -> GoldenCheck:
    """Actions in metres whose range is 2 in both dimensions. The first is absolute in every kind."""
    spec = example_spec()
    spec = replace(spec, action=replace(spec.action, kind=kind, absolute_dims=(0,)))
    request = example_request(spec)
    return GoldenCheck(spec, Golden(request.images, request.state, "go", 3, actions), tolerance)


def ramp() -> Array:
    return np.linspace(0.1, 1.2, 12, dtype=np.float32).reshape(6, 2)


@pytest.mark.parametrize("tolerance", [1e-4, 2e-2])
def test_a_difference_within_the_tolerance_is_none(tolerance: float) -> None:
    check = example_check(ramp(), tolerance=tolerance)
    assert check.difference(ramp() + np.float32(0.98 * tolerance * 2)) is None
    assert "allowed" in str(check.difference(ramp() + np.float32(1.02 * tolerance * 2)))


def test_the_largest_difference_is_named() -> None:
    actions = ramp()
    actions[4, 1] += 0.5
    actions[2, 0] += 0.4
    words = "golden plan: x1 at step 4: expected 1 m, got 1.5 (2.5e-01 of its range, allowed 0.0001)"
    assert example_check(ramp()).difference(actions) == words


def test_the_error_of_a_sum_counts_in_the_step_that_makes_it() -> None:
    """Each output is right to the tolerance, and the sum of six is not."""
    drift = np.arange(1, 7, dtype=np.float32)[:, None] * np.array([0.0, 1.5e-4], np.float32)
    assert example_check(ramp(), "delta").difference(ramp() + drift) is None
    assert "x1 at step 5" in str(example_check(ramp(), "absolute").difference(ramp() + drift))
    assert "x0 at step 5" in str(example_check(ramp(), "delta").difference(ramp() + drift[:, ::-1]))  # a gripper
    wrong = ramp()
    wrong[3:, 1] += 0.1  # one wrong step moves all later ones
    assert "x1 at step 3: expected a change of 0.2 m, got 0.3" in str(example_check(ramp(), "delta").difference(wrong))


def test_float32_commands_far_from_zero_may_differ_by_their_rounding() -> None:
    far = ramp() + np.float32(20_000)
    assert example_check(far).difference(np.nextafter(far, np.float32(np.inf))) is None


class SkewedBackend(FakeBackend):
    """The fake backend, whose actions are off by `skew`."""

    skew = 0.0

    async def run(self, verb: str, inputs: Tensors, deadline: float = np.inf) -> Tensors:
        outputs = await super().run(verb, inputs, deadline)
        return {**outputs, "actions": outputs["actions"] + np.float32(self.skew)} if verb == "decode" else outputs


class Endpoint:
    """A device of which a test replaces the models."""

    def __init__(self, name: str) -> None:
        options = RigOptions()
        self.backend = SkewedBackend(options.spec, ArenaBook(options.slots, lease_s=1e9))
        self.device: Device = example_device(self.backend, options)
        self.device.name = name
        self.generation = 0
        self.device.generation = lambda: ("process", self.generation)


class Service:
    """A policy over two endpoints whose golden plan is `golden`."""

    def __init__(self, golden: Golden) -> None:
        self.endpoints = [Endpoint("first"), Endpoint("second")]
        self.changed = asyncio.Event()
        placement = Placement([each.device for each in self.endpoints], wait_s=5.0, changed=self.changed)
        self.check = GoldenCheck(example_spec(), golden, 1e-4)
        sessions = MemorySessions(60.0, 4)
        self.policy = Policy(PolicyParts(example_spec(), "fake", placement, sessions, 16, "0", golden=self.check))

    def replaces_models(self, endpoint: Endpoint) -> None:
        endpoint.generation += 1
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():  # noqa: ASYNC110 - a state is polled, and has no event
            await asyncio.sleep(0.01)


def example_golden(actions: Array) -> Golden:
    request = example_request(example_spec())
    return Golden(request.images, request.state, "go", 3, actions)


async def planned(spec: PolicySpec) -> Array:
    """The actions that the fake backend makes for the golden observation."""
    service = Service(example_golden(np.zeros((spec.chunk, 2), np.float32)))
    device = service.endpoints[0].device
    device.batcher.start()
    service.policy.skip_warm_up()
    chunk = await service.policy.plan(service.check.request)
    await device.batcher.close()
    return chunk.actions


@pytest.fixture
async def right() -> Array:
    return await planned(example_spec())


@pytest.fixture
async def services() -> AsyncIterator[Callable[[Array], Service]]:
    """Makes services with a golden plan."""
    made: list[Service] = []

    def make(actions: Array) -> Service:
        made.append(service := Service(example_golden(actions)))
        for endpoint in service.endpoints:
            endpoint.device.batcher.start()
        return service

    yield make
    for service in made:
        await service.policy.drain(0.0)
        for endpoint in service.endpoints:
            await endpoint.device.batcher.close()


MakeService = Callable[[Array], Service]


async def test_devices_that_make_the_golden_plan_are_ready(services: MakeService, right: Array) -> None:
    service = services(right)
    await service.policy.warm_up()
    assert (service.policy.ready, service.policy.fault) == (True, None)
    assert service.policy.golden_digest == service.check.golden.digest


async def test_devices_that_make_another_plan_are_not_ready(
    services: MakeService, right: Array, caplog: pytest.LogCaptureFixture
) -> None:
    service = services(right + np.float32(0.5))
    with caplog.at_level(logging.ERROR):
        await service.policy.warm_up()
        await asyncio.sleep(0.05)
    assert not service.policy.ready
    assert [each.device.state for each in service.endpoints] == [Health.WRONG_PLAN] * 2
    with pytest.raises(NotReady, match=r"golden plan: x\d at step \d: expected .* got"):
        await service.policy.plan(example_request(example_spec()))
    lines = sorted(record.getMessage() for record in caplog.records)  # the devices are checked at the same time
    assert len(lines) == 2  # one of each device
    assert lines[0].startswith("first gets no plans: golden plan: x")


async def test_a_device_is_checked_again_after_a_repair(services: MakeService, right: Array) -> None:
    service = services(right)
    await service.policy.warm_up()
    first, _ = service.endpoints
    first.backend.skew = 1.0
    service.replaces_models(first)
    await service.until(lambda: first.device.state is Health.WRONG_PLAN)
    assert service.policy.ready  # the other device serves
    assert "golden plan" in str(service.policy.fault)
    first.backend.skew = 0.0
    service.replaces_models(first)
    await service.until(lambda: first.device.state is Health.UP)
    assert service.policy.fault is None
