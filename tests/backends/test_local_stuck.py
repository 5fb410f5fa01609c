"""A call that hangs in this process: its device gets no plans meanwhile, and after a while the process is given up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from tests.backends.triton.supervised import until
from tests.planning.rig import RigOptions, example_spec
from tests.scheduling.echo import group, limits
from wavserve.app.fleet import watch_local
from wavserve.backends.local import LocalBackend
from wavserve.core.errors import CallStuck
from wavserve.core.types import Tensors
from wavserve.models.runners.calls import CancelCheck
from wavserve.planning.device import Device, DeviceConfig, Health
from wavserve.scheduling.stuck_calls import MIN_CALLS

HANG_S = 0.6


@dataclass
class HangingRunner:
    """Its calls wait until `go` is set, as in a driver that hangs: they do not look at their cancellation."""

    go: threading.Event = field(default_factory=threading.Event)
    begun: threading.Event = field(default_factory=threading.Event)

    def run(self, verb: str, inputs: Tensors, cancelled: CancelCheck) -> Tensors:
        self.begun.set()
        self.go.wait(60)
        rows = len(next(iter(inputs.values())))
        handles = np.zeros((rows, 1, 2), np.int64)
        return {"handles": handles, "status": np.zeros(rows, np.int32)}


@dataclass
class Hung:
    runner: HangingRunner
    device: Device
    backend: LocalBackend
    call: asyncio.Task[Tensors]
    changes: list[bool]
    """whether the backend was up, at each change"""
    deaths: list[str]


@pytest.fixture(params=["denoise", "imagine"])
async def hung(request: pytest.FixtureRequest) -> AsyncIterator[Hung]:
    """A device on which a call runs and does not end; one call is cancelled with its plan, and the other never is."""
    verb, runner = request.param, HangingRunner()
    changes: list[bool] = []
    deaths: list[str] = []
    backend = LocalBackend({"video_dit": runner}, on_change=lambda: changes.append(backend.up))
    options = RigOptions()
    config = DeviceConfig(replace(limits(), hang_s=60.0), options.slice_size, options.in_flight, max_texts=8)
    device = Device.over(example_spec(), backend, config)
    watch = watch_local(device, backend, HANG_S, deaths.append)
    device.batcher.start()
    runner.go.set()
    for _ in range(MIN_CALLS):
        await device.batcher.run(group(1, verb))
    runner.go.clear()
    runner.begun.clear()
    call = asyncio.create_task(device.batcher.run(group(1, verb)))
    await until(runner.begun.is_set)
    yield Hung(runner, device, backend, call, changes, deaths)
    runner.go.set()
    await device.batcher.close()
    await backend.close()
    await watch.stop()


async def test_a_device_is_down_while_a_call_in_this_process_stands_still(hung: Hung) -> None:
    assert hung.device.state is Health.UP
    hung.device.batcher.judge_calls(3.0)
    assert hung.device.state is Health.DOWN
    with pytest.raises(CallStuck, match="video_dit: no answer"):
        await hung.call
    await asyncio.sleep(0.01)
    assert hung.device.state is Health.DOWN, "the thread still hangs, although nobody waits for its call"
    hung.runner.go.set()
    await until(lambda: hung.device.state is Health.UP)
    assert hung.changes == [False, True]
    assert not hung.deaths


async def test_a_call_that_stands_still_for_long_is_the_death_of_the_runner(
    hung: Hung, caplog: pytest.LogCaptureFixture
) -> None:
    hung.device.batcher.judge_calls(3.0)
    with pytest.raises(CallStuck):
        await hung.call
    await until(lambda: bool(hung.deaths))
    assert hung.deaths == ["the runner of the models"]
    assert "video_dit: a call has stood still" in caplog.text


async def test_a_call_that_runs_and_is_not_stuck_is_no_death(hung: Hung) -> None:
    await asyncio.sleep(2 * HANG_S)
    assert not hung.deaths
    assert hung.device.state is Health.UP
