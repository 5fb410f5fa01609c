"""Episodes on the virtual clock with a real policy: the same numbers on a busy machine as on a quiet one."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.clients.libero.sources import assert_same
from tests.simulation.fake import FakeEnvironment, starts_of
from wavserve.app.in_process import InProcessPolicy
from wavserve.app.settings import BackendSettings, BundleSettings, Settings
from wavserve.bundle.bundle import Bundle
from wavserve.clients.libero.clocks import ClockConfig
from wavserve.clients.libero.episode import EpisodeConfig, EpisodeResult, run_episode
from wavserve.clients.libero.plan_source import SourceConfig, UnarySource
from wavserve.core.simulation import Start

OPTIONS = {"num_iterations": 1, "num_video_samples": 6, "num_value_samples": 2, "fixed_shapes": True}
STARTS = starts_of("fake_reach")[:2]


@pytest.fixture(scope="module")
def policy(tiny: Bundle) -> Iterator[InProcessPolicy]:
    served = InProcessPolicy(
        Settings(bundle=BundleSettings(path=tiny.folder), backend=BackendSettings(kind="local", compile="off"))
    )
    yield served
    served.close()


def test_a_busy_machine_changes_nothing(policy: InProcessPolicy) -> None:
    """First one environment alone, then two at once beside a process that takes a core."""
    clock = ClockConfig("virtual", latency_ms=120.0, jitter_ms=60.0, loss=0.2)
    config = EpisodeConfig(replan_steps=5, num_steps_wait=2, max_steps=18, clock=clock, rtc_mode="rtc_guided", seed=3)
    quiet = evaluated(policy, config, STARTS)
    busy: dict[Start, EpisodeResult] = {}

    def evaluate(starts: list[Start]) -> None:
        busy.update(evaluated(policy, config, starts))

    with cpu_hog():
        threads = [threading.Thread(target=evaluate, args=(STARTS[i::2][::-1],)) for i in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for start, result in quiet.items():
        assert_same(result, busy[start])
        assert result.num_plans > 1
    assert len({result.receipt_digests for result in quiet.values()}) == len(STARTS)


def evaluated(policy: InProcessPolicy, config: EpisodeConfig, starts: list[Start]) -> dict[Start, EpisodeResult]:
    """One environment and one source, episode by episode."""
    environment = FakeEnvironment(size=128)
    source = UnarySource(policy, policy.policy(), SourceConfig(rotation=180, options=OPTIONS, rtc_mode=config.rtc_mode))
    return {start: run_episode(environment, source, start, config) for start in starts}


@contextmanager
def cpu_hog() -> Iterator[None]:
    hog = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        hog.kill()
        hog.wait()
