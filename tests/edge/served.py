"""What a test of the edges gets: the fake policy, its metrics, and the addresses of both edges."""

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
