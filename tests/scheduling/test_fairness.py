"""Robots that ask as fast as they can get equal shares of a device, whatever they ask for."""

from __future__ import annotations

import pytest

from tests.scheduling.simulated import INF, SimulatedDevice

SIZES = {"one": (1, 0), "three": (3, 0), "many": (2, 4), "most": (3, 4)}
"""robot -> calls of a part of its plans, and iterations"""


def shares(sizes: dict[str, tuple[int, int]], far: set[str]) -> dict[str, float]:
    """Each robot's share of the device when all ask as fast as they can; those in `far` have a far deadline, and the
    others none."""
    device = SimulatedDevice()
    for _ in range(2000):
        busy = device.busy
        for robot, (calls, wanted) in sizes.items():
            if robot not in busy:
                device.ask(robot, calls, wanted, 1e4 if robot in far else INF)
        device.run_one()
    return {robot: device.calls_of(robot) / len(device.served) for robot in sizes}


@pytest.mark.parametrize("within_s", [INF, 0.6])
def test_a_long_plan_is_not_starved_by_short_ones(within_s: float) -> None:
    """It has no deadline, and three robots ask for small plans as fast as they can. It ends when a quarter of the
    device would have made it."""
    device = SimulatedDevice()
    huge = device.ask("huge", calls=3, wanted=40, within_s=INF)
    while huge.ended is None:
        for robot in {"a", "b", "c"} - device.busy:
            device.ask_if_admitted(robot, calls=1, wanted=0, within_s=within_s)
        device.run_one()
    needs_s = 3 * 41 * device.call_s
    assert huge.ended - huge.ticket.starts <= 4 * needs_s + 4 * device.call_s


def test_robots_without_deadlines_get_equal_device_time() -> None:
    """Whether their plans are of one call or of many."""
    assert all(0.2 < share < 0.3 for share in shares(SIZES, set()).values())


@pytest.mark.parametrize("far", [{"a"}, {"a", "b"}, {"a", "b", "c"}, {"a", "b", "c", "d"}])
def test_a_far_deadline_gets_as_much_as_no_deadline(far: set[str]) -> None:
    assert all(0.2 < share < 0.3 for share in shares(dict.fromkeys("abcd", (2, 3)), far).values())


@pytest.mark.parametrize("far", [{"one", "many"}, {"three", "most"}, {"many", "most"}])
def test_far_deadlines_take_nothing_from_robots_without_a_deadline(far: set[str]) -> None:
    """Among themselves, plans with far deadlines go by their deadlines."""
    by_robot = shares(SIZES, far)
    assert all(by_robot[robot] > 0.2 for robot in SIZES.keys() - far), by_robot
    assert sum(by_robot[robot] for robot in far) > 0.3, by_robot


def test_iterations_are_shared() -> None:
    """Three robots in turn that could each use more than there is: none gets all the spare time."""
    device = SimulatedDevice(call_s=0.05)
    robots = ["a", "b", "c"]
    for _ in range(3000):
        busy = device.busy
        for robot in robots:
            if robot not in busy:
                device.ask(robot, calls=2, wanted=9 if robot == "a" else 3, within_s=0.6)
        device.run_one()
    used = [device.calls_of(robot) for robot in robots]
    assert max(used) < 1.4 * min(used), used
