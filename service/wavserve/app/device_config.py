"""The settings of one device, as its planner and its batcher need them."""

from __future__ import annotations

from typing import NamedTuple

from wavserve.app.settings import Settings
from wavserve.planning.device import DeviceConfig
from wavserve.scheduling.batcher_config import BatcherConfig


class BackendCapacity(NamedTuple):
    """How much a backend can do at a time."""

    num_slots: int
    """arena slots; a slice must fit into them"""
    workers: int
    """calls that run at once"""
    one_call_per_model: bool
    """whether each of these calls must be on another model"""


def device_config(settings: Settings, size: BackendCapacity) -> DeviceConfig:
    """The configuration of a device whose backend has this size."""
    batcher, planner = settings.batcher, settings.planner
    return DeviceConfig(
        batcher=BatcherConfig(
            max_rows=batcher.max_rows,
            workers=size.workers,
            depth=size.workers + batcher.ready,
            slice_s=batcher.slice_s,
            arena_retry_s=batcher.arena_retry_s,
            one_call_per_model=size.one_call_per_model,
            hang_s=settings.triton.hang_s,
            max_arena_wait_s=settings.arena.lease_s + settings.triton.hang_s,
        ),
        max_slice=min(planner.slice_size, size.num_slots),
        slices_in_flight=planner.slices_in_flight,
        max_texts=settings.backend.max_cached_texts,
    )
