"""Warm-up plans: the first plans on a device, for which no robot waits.

The first calls of a model are slow, and before them nothing is known of its cost. So a device gets no robot's plan
until a warm-up plan has been made on its present models. Knows devices, and nothing of how a plan is executed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator

import numpy as np

from wavserve.core.normalise import accepted_range
from wavserve.core.rtc import RtcRequest
from wavserve.core.spec import PolicySpec
from wavserve.core.types import PlanRequest
from wavserve.planning.device import Device, Health
from wavserve.planning.proposal import CONTROL_MODES
from wavserve.policy.placement import Placement

log = logging.getLogger(__name__)

RETRY_S = 1.0
"""Pause before a device whose warm-up failed is tried again."""


def warm_up_requests(spec: PolicySpec, max_slice: int) -> Iterator[PlanRequest]:
    """Requests within the policy's bounds, with black frames and the mean state.

    They make every call of a plan, with iterations where the bounds allow any, and have one slice of samples. The last
    two have a guided decode.
    """
    bounds = spec.bounds
    iterations = min(1, bounds.max_iterations) if bounds.max_video_samples > 1 else 0
    samples = max(min(spec.planner.num_video_samples, max_slice), 1 + iterations)  # an iteration needs two samples
    options: dict[str, object] = {
        "num_video_samples": samples,
        "video_elite_fraction": 1.0,
        "value_elite_fraction": 1.0,
    }
    if iterations and spec.planner.mode in ("off", *CONTROL_MODES):
        options["mode"] = "paper"  # a request may ask for it
    if samples * spec.planner.num_value_samples < 2 and iterations:
        options["num_value_samples"] = 2
    images = {c.name: np.zeros((c.height, c.width, 3), np.uint8) for c in spec.cameras}
    state = np.mean(accepted_range(spec.state.norm), axis=0).astype(np.float32)
    # guided with weight 0: it costs what guidance costs, and the left-over does not matter
    left_over = np.zeros((1, spec.action.vector.dim), np.float32)
    guided = RtcRequest(mode="rtc_guided", max_guidance_weight=0.0, execution_horizon=1, prev_chunk_left_over=left_over)
    for num_iterations, rtc in ((iterations, None), (iterations, None), (0, None), (0, guided), (0, guided)):
        merged = {**options, "num_iterations": num_iterations}
        yield PlanRequest(images=images, state=state, instruction="a", seed=0, options=merged, rtc=rtc)


class WarmUp:
    """Keeps the devices of a service warm."""

    def __init__(self, placement: Placement, plan_on: Callable[[Device], Awaitable[str | None]]) -> None:
        """`plan_on` makes the warm-up plans on a device, and returns what is wrong with them; None: nothing is."""
        self._placement = placement
        self._plan_on = plan_on

    async def start(self) -> None:
        """Warms every device that is up. Raises the first error when that fails on all of them."""
        up = [device for device in self._placement.devices if device.health() is Health.UP]
        results = await asyncio.gather(*map(self._warm, up), return_exceptions=True)
        failures = [result for result in results if isinstance(result, BaseException)]
        if failures and len(failures) == len(up):
            raise failures[0]

    async def keep(self) -> None:
        """Warms devices that join or come up later, or whose models are new, until it is cancelled."""
        kept: set[Device] = set()
        async with asyncio.TaskGroup() as tasks:
            while True:
                devices = set(self._placement.devices)
                for device in devices - kept:
                    tasks.create_task(self._keep(device))
                kept = devices
                await self._placement.wait_for_change(RETRY_S)

    async def _keep(self, device: Device) -> None:
        while device in self._placement.devices:
            if device.state is Health.COLD:
                try:
                    await self._warm(device)
                except Exception as error:  # noqa: BLE001  # whatever failed, the device stays out and is tried again
                    log.warning("%s gets no plans yet, because a warm-up plan failed: %s", device.name, error)
                    await asyncio.sleep(RETRY_S)
            else:
                await self._placement.wait_for_change(RETRY_S)

    async def _warm(self, device: Device) -> None:
        generation = device.generation()  # models that are replaced meanwhile leave the device cold
        device.fault = await self._plan_on(device)
        device.warmed = device.faulty = generation
        if device.fault is not None:
            log.error("%s gets no plans: %s", device.name, device.fault)
        else:
            log.info("%s takes plans", device.name)
        self._placement.note_change()
