"""Which device a plan runs on, and what happens to the plan when its device goes down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tests.clock import yield_to_loop
from tests.planning.rig import MakeRig, Rig, RigOptions, example_backend, example_device
from tests.policy.requests import first, placed
from wavserve.core.errors import CallStuck, DeadlineExceeded, ModelDown, NotReady, Overloaded
from wavserve.planning.device import Device, Health
from wavserve.policy.parts import PolicyParts
from wavserve.policy.placement import Placement, Prefer
from wavserve.policy.policy import Policy
from wavserve.policy.sessions import MemorySessions
from wavserve.scheduling.admission import Demand
from wavserve.scheduling.ledger import Work


def idle_device() -> Device:
    """A device that runs no plan."""
    options = RigOptions()
    return example_device(example_backend(options), options)


def set_health(device: Device, health: Health) -> None:
    device.health = lambda: health


async def test_plans_go_to_the_least_loaded_device_and_are_counted() -> None:
    devices = [idle_device() for _ in range(3)]
    placement = Placement(devices, wait_s=1.0)
    async with placed(placement) as one, placed(placement) as two, placed(placement) as three:
        assert {id(one), id(two), id(three)} == set(map(id, devices))
        async with placed(placement):
            assert sorted(device.plans for device in devices) == [1, 1, 2]
    assert [device.plans for device in devices] == [0, 0, 0]


async def test_the_load_is_the_work_that_plans_still_need() -> None:
    little, much = idle_device(), idle_device()
    placement = Placement([little, much], wait_s=1.0)
    little.planner.admission.register(Demand("long", Work(0.1), Work(5.0)), deadline=1e9)
    much.planner.admission.register(Demand("short", Work(0.2), Work(5.0)), deadline=1e9)
    async with placed(placement) as one, placed(placement) as other:
        assert one is other is little


async def test_a_device_that_is_down_gets_no_plans() -> None:
    down, up = idle_device(), idle_device()
    set_health(down, Health.DOWN)
    placement = Placement([down, up], wait_s=1.0)
    async with placed(placement) as one, placed(placement) as other:
        assert one is other is up
    assert placement.ready


async def test_plans_wait_for_a_repair() -> None:
    only, changed = idle_device(), asyncio.Event()
    set_health(only, Health.DOWN)
    placement = Placement([only], wait_s=5.0, changed=changed)
    assert not placement.ready

    async def plan() -> Device:
        async with placed(placement) as device:
            return device

    waiting = [asyncio.ensure_future(plan()) for _ in range(3)]
    await yield_to_loop(1)
    changed.set()  # a change that leaves the device down
    await yield_to_loop(5)
    assert not any(each.done() for each in waiting)
    set_health(only, Health.UP)
    changed.set()
    assert await asyncio.gather(*waiting) == [only] * 3


async def test_plans_wait_for_a_repair_only_so_long() -> None:
    device = idle_device()
    set_health(device, Health.DOWN)
    with pytest.raises(NotReady, match="being repaired"):
        async with placed(Placement([device], wait_s=0.01)):
            pass


async def test_plans_do_not_wait_for_a_repair_while_draining() -> None:
    """Those that wait are refused at once, and so are later ones. A device that is up still serves."""
    up, down = idle_device(), idle_device()
    set_health(down, Health.DOWN)
    placement = Placement([down], wait_s=60.0)

    async def plan() -> None:
        async with placed(placement):
            pass

    waiting = [asyncio.ensure_future(plan()) for _ in range(3)]
    await yield_to_loop(5)
    placement.drain()
    await yield_to_loop(5)
    for each in [*waiting, asyncio.ensure_future(plan())]:
        async with asyncio.timeout(20):
            with pytest.raises(NotReady, match="stopping"):
                await each
    either = Placement([down, up], wait_s=60.0)
    either.drain()
    async with placed(either) as device:
        assert device is up


def named(*names: str) -> dict[str, Device]:
    devices = {name: idle_device() for name in names}
    for name, device in devices.items():
        device.name = name
    return devices


def preferring(*mine: str) -> Prefer:
    return lambda names: ([each for each in mine if each in names], [each for each in names if each not in mine])


async def test_plans_go_to_the_least_loaded_of_the_preferred_devices_however_loaded_these_are() -> None:
    devices = named("a", "b", "c")
    placement = Placement(devices.values(), wait_s=1.0, prefer=preferring("c", "b"))
    async with placed(placement) as one, placed(placement) as two, placed(placement), placed(placement):
        assert (one.name, two.name) == ("c", "b")
        assert [each.plans for each in devices.values()] == [0, 2, 2]


async def test_another_device_is_taken_while_no_preferred_one_is_up() -> None:
    devices = named("a", "b")
    placement = Placement(devices.values(), wait_s=1.0, prefer=preferring("b"))
    set_health(devices["b"], Health.DOWN)
    async with placed(placement) as device:
        assert device is devices["a"]
    set_health(devices["b"], Health.UP)
    async with placed(placement) as device:
        assert device is devices["b"]


def refusing(*names: str, error: Exception) -> Callable[[Device], str]:
    def admit(device: Device) -> str:
        if device.name in names:
            raise error
        return f"admitted by {device.name}"

    return admit


@pytest.mark.parametrize(
    "error", [Overloaded("it would be late", 1.0, 2.0, "device_time"), DeadlineExceeded("never so fast")]
)
async def test_another_device_is_taken_for_a_plan_whose_deadline_the_preferred_ones_cannot_keep(
    error: Exception,
) -> None:
    devices = named("a", "b", "c")
    placement = Placement(devices.values(), wait_s=1.0, prefer=preferring("c"))
    async with placement.place(refusing("c", error=error)) as (device, admitted):
        assert (device.name, admitted) == ("a", "admitted by a")
        assert [each.plans for each in devices.values()] == [1, 0, 0]
    with pytest.raises(type(error)) as caught:
        async with placement.place(refusing("a", "b", "c", error=error)):
            pass
    assert caught.value is error, "of the preferred device"
    assert not any(each.plans for each in devices.values())


async def test_a_robot_beyond_its_share_gets_no_other_device() -> None:
    devices = named("a", "b")
    placement = Placement(devices.values(), wait_s=1.0, prefer=preferring("b"))
    with pytest.raises(Overloaded):
        async with placement.place(refusing("b", error=Overloaded("others wait", reason="share"))):
            pass


async def test_devices_join_and_leave_while_plans_wait_and_run() -> None:
    devices = named("a", "b")
    placement = Placement([], wait_s=20.0)
    assert not placement.ready

    async def plan() -> str:
        async with placed(placement) as device:
            return device.name

    waiting = asyncio.ensure_future(plan())
    await yield_to_loop(5)
    assert not waiting.done()
    placement.add(devices["a"])
    assert await waiting == "a"
    async with placed(placement) as running:
        placement.add(devices["b"])
        placement.remove(devices["a"])
        assert (running.plans, placement.devices) == (1, (devices["b"],))
        assert {await plan() for _ in range(3)} == {"b"}
    assert devices["a"].plans == 0


def test_what_each_device_gets_a_device_that_joins_gets_too() -> None:
    devices, prepared = named("a", "b"), list[str]()
    placement = Placement([devices["a"]], wait_s=1.0)
    placement.with_each(lambda device: prepared.append(device.name))
    placement.add(devices["b"])
    assert prepared == ["a", "b"]


async def test_a_plan_is_made_on_the_device_that_can_keep_its_deadline() -> None:
    """The preferred one is as busy as its promises allow. The place that is held for a request's body moves too."""
    options, ran = RigOptions(), list[str]()

    def device(name: str) -> Device:
        async def note(verb: str) -> None:
            ran.append(name)

        made = example_device(example_backend(replace(options, before=note)), options)
        made.name = name
        made.batcher.start()
        return made

    mine, other = device("mine"), device("other")
    placement = Placement([other, mine], wait_s=5.0, prefer=preferring("mine"))
    policy = Policy(PolicyParts(options.spec, "fake", placement, MemorySessions(60.0, 4), 16, "0"))
    await policy.warm_up()
    ran.clear()

    async def plan(seed: int) -> set[str]:
        deadline = time.monotonic() + 10.0
        with policy.reserve(deadline):
            await policy.plan(first(seed), deadline)
        made_on = set(ran)
        ran.clear()
        return made_on

    assert await plan(1) == {"mine"}
    busy = mine.planner.admission.register(Demand("long", Work(100.0), Work(100.0)), time.monotonic())
    assert await plan(2) == {"other"}
    mine.planner.admission.leave(busy)
    assert await plan(3) == {"mine"}
    await policy.drain(0.0)
    await asyncio.gather(mine.batcher.close(), other.batcher.close())


def test_one_device_of_another_policy_makes_all_unready() -> None:
    devices = [idle_device(), idle_device()]
    placement = Placement(devices, wait_s=1.0)
    assert placement.ready
    set_health(devices[1], Health.WRONG_POLICY)
    assert not placement.ready


@pytest.mark.parametrize("verb", ["encode_images", "imagine", "score", "value_features", "decode"])
async def test_a_plan_whose_models_go_down_starts_again_and_is_the_same(rig: Rig, verb: str) -> None:
    """Whatever call it was at; afterwards no slot is taken."""
    failures_left = 0

    async def go_down(called: str) -> None:
        nonlocal failures_left
        if called == verb and failures_left:
            failures_left -= 1
            raise ModelDown(f"{called}: gone")

    rig.backend.before = go_down
    undisturbed = await rig.policy.plan(first())
    failures_left = 1
    again = await rig.policy.plan(first())
    assert failures_left == 0
    np.testing.assert_array_equal(again.actions, undisturbed.actions)
    await yield_to_loop(50)
    assert rig.backend.book.used == 0
    failures_left = 100
    with pytest.raises(ModelDown):
        await rig.policy.plan(first())
    assert failures_left >= 90  # it gives up after a few starts


async def test_a_plan_whose_own_call_is_stuck_ends_at_once_and_its_neighbour_waits_for_the_repair(
    make_rig: MakeRig,
) -> None:
    """Both have called the same device; the call of the second waits behind the stuck one."""
    hanging, forever = asyncio.Event(), asyncio.Event()
    rig = await make_rig(RigOptions(workers=1, depth=1))
    await rig.policy.plan(first(3))  # now something is known of every call

    async def hang(verb: str) -> None:
        if verb == "score" and not hanging.is_set():
            hanging.set()
            await forever.wait()

    rig.backend.before = hang
    rig.batcher.on_stuck = lambda model: set_health(rig.device, Health.DOWN)
    stuck = asyncio.ensure_future(rig.policy.plan(first()))
    await hanging.wait()
    neighbour = asyncio.ensure_future(rig.policy.plan(first(2)))
    await yield_to_loop(50)
    rig.batcher.judge_calls(1e9)
    with pytest.raises(CallStuck, match="value_dit: no answer to score"):
        await stuck
    set_health(rig.device, Health.UP)
    assert len((await neighbour).actions)
    await yield_to_loop(50)
    assert rig.backend.book.used == 0


async def test_a_policy_is_ready_when_it_is_warm_and_a_device_is_up(make_rig: MakeRig) -> None:
    rig = await make_rig(RigOptions(ready=False))
    assert not rig.policy.ready
    await rig.policy.warm_up()
    assert rig.policy.ready
    set_health(rig.device, Health.DOWN)
    assert not rig.policy.ready
    with pytest.raises(NotReady, match="being repaired"):
        await rig.policy.plan(first())
