"""What a test of the edges is handed: the fake policy, its metrics, and where both edges listen."""

from __future__ import annotations

from dataclasses import dataclass

from tests.edge.fakes import RecordingPolicy
from tests.edge.robots import Address
from wavserve.system.telemetry import Metrics


@dataclass(frozen=True)
class Served:
    policy: RecordingPolicy
    metrics: Metrics
    address: Address
