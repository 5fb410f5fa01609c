"""Where a plan goes, and what becomes of it when its device goes down; on fakes, without waiting."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from tests.planning.rig import RigOptions, example_device, example_request, example_spec, rigged
from wavserve.core.errors import ModelDown, NotReady
from wavserve.planning.device import Device, Health
from wavserve.policy.placement import Placement
from wavserve.scheduling.admission import Demand
from wavserve.scheduling.ledger import Work


def devices(count: int) -> tuple[list[Device], list[Health]]:
    """Devices that nobody plans on, and their healths to set."""
    healths = [Health.UP] * count

    def told(index: int) -> Device:
        device = example_device(example_spec())
        device.health = lambda: healths[index]
        return device

    return [told(index) for index in range(count)], healths


def test_plans_go_to_the_least_loaded_device_and_stay_counted() -> None:
    made, _ = devices(3)

    async def main() -> None:
        placement = Placement(made, wait_s=1.0)
        async with placement.place() as first, placement.place() as second, placement.place() as third:
            assert {id(first), id(second), id(third)} == set(map(id, made))
            async with placement.place():
                assert sorted(device.plans for device in made) == [1, 1, 2]
        assert [device.plans for device in made] == [0, 0, 0]

    asyncio.run(main())


def test_the_load_is_what_plans_are_still_owed() -> None:
    made, _ = devices(2)

    async def main() -> None:
        placement = Placement(made, wait_s=1.0)
        made[0].planner.admission.register(Demand("long", Work(0.1), Work(5.0)), deadline=1e9)
        made[1].planner.admission.register(Demand("short", Work(0.2), Work(5.0)), deadline=1e9)
        async with placement.place() as one, placement.place() as other:
            assert one is other is made[0]

    asyncio.run(main())


def test_a_device_that_is_down_gets_no_plans() -> None:
    made, healths = devices(2)
    healths[0] = Health.DOWN

    async def main() -> None:
        placement = Placement(made, wait_s=1.0)
        async with placement.place() as one, placement.place() as other:
            assert one is other is made[1]
        assert placement.ready

    asyncio.run(main())


def test_plans_wait_for_a_repair_and_not_for_ever() -> None:
    made, healths = devices(1)
    healths[0] = Health.DOWN

    async def main() -> None:
        changed = asyncio.Event()
        placement = Placement(made, wait_s=5.0, changed=changed)
        assert not placement.ready

        async def plan() -> Device:
            async with placement.place() as device:
                return device

        waiting = [asyncio.ensure_future(plan()) for _ in range(3)]
        await asyncio.sleep(0)
        changed.set()  # something changed, but not for the better
        for _ in range(5):
            await asyncio.sleep(0)
        assert not any(each.done() for each in waiting)
        healths[0] = Health.UP
        changed.set()
        assert await asyncio.gather(*waiting) == [made[0]] * 3
        healths[0] = Health.DOWN
        with pytest.raises(NotReady, match="being repaired"):
            async with Placement(made, wait_s=0.01).place():
                pass

    asyncio.run(main())


def test_one_device_of_another_policy_makes_all_unready() -> None:
    made, healths = devices(2)
    placement = Placement(made, wait_s=1.0)
    assert placement.ready
    healths[1] = Health.WRONG_POLICY
    assert not placement.ready


@pytest.mark.parametrize("verb", ["encode_images", "imagine", "score", "value_features", "decode"])
def test_a_plan_whose_models_go_down_is_made_again_the_same(verb: str) -> None:
    """Wherever it was: the answer is the undisturbed one, and no slot stays taken."""
    spec = example_spec()
    fail = {"left": 0}

    async def before(asked: str) -> None:
        if asked == verb and fail["left"]:
            fail["left"] -= 1
            raise ModelDown(f"{asked}: gone")

    async def main() -> None:
        async with rigged(spec, RigOptions(before=before)) as rig:
            request = example_request(spec)
            undisturbed = await rig.policy.plan(request)
            fail["left"] = 1
            again = await rig.policy.plan(request)
            assert fail["left"] == 0
            np.testing.assert_array_equal(again.actions, undisturbed.actions)
            for _ in range(50):
                await asyncio.sleep(0)
            assert rig.backend.book.used == 0
            fail["left"] = 100
            with pytest.raises(ModelDown):
                await rig.policy.plan(request)
            assert fail["left"] >= 90  # not for ever

    asyncio.run(main())


def test_a_policy_is_ready_when_it_is_warm_and_a_device_is_up() -> None:
    spec = example_spec()

    async def main() -> None:
        async with rigged(spec, RigOptions(ready=False)) as rig:
            assert not rig.policy.ready
            await rig.policy.warm_up()
            assert rig.policy.ready
            [device] = rig.policy._parts.placement.devices
            device.health = lambda: Health.DOWN
            assert not rig.policy.ready
            with pytest.raises(NotReady, match="being repaired"):
                await rig.policy.plan(example_request(spec))

    asyncio.run(main())
