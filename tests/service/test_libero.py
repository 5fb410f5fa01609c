"""An evaluation against the real service: the same numbers by every way, and runs that are killed."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.service.rig import Server, start
from tests.simulation.fake import FakeEnvironment
from wavserve.app.in_process import InProcessPolicy
from wavserve.app.settings import Settings
from wavserve.bundle.bundle import Bundle
from wavserve.clients.libero.clocks import ClockConfig
from wavserve.clients.libero.episode import EpisodeConfig, EpisodeResult, run_episode
from wavserve.clients.libero.evaluation import REPEATABLE
from wavserve.clients.libero.options import Options, read_options
from wavserve.clients.libero.plan_source import PlanSource, SourceConfig, UnarySource
from wavserve.clients.libero.records import EpisodeKey
from wavserve.clients.libero.results import load_run
from wavserve.clients.libero.stream_source import StreamSource
from wavserve.clients.plan_client import PlanClient
from wavserve.commands.libero import evaluate
from wavserve.core.simulation import Start

SMALL = {"num_iterations": 1, "num_video_samples": 3, "num_value_samples": 4}


@pytest.fixture(scope="module")
def sources(server: Server) -> Iterator[dict[str, Any]]:
    """Makes a source of each way, with a config."""
    if server.backend != "local":
        pytest.skip("in process the models are on the local backend")
    bundle = Settings().bundle.model_copy(update={"path": server.bundle})
    backend = Settings().backend.model_copy(update={"compile": "off"})
    with ExitStack() as stack:
        grpc = stack.enter_context(PlanClient(server.grpc))
        http = stack.enter_context(PlanClient(server.http))
        own = InProcessPolicy(Settings(bundle=bundle, backend=backend))
        stack.enter_context(closing(own))
        policy = grpc.policy()
        assert own.policy() == http.policy() == policy
        yield {
            "in-process": lambda config: UnarySource(own, policy, config),
            "grpc": lambda config: UnarySource(grpc, policy, config),
            "http": lambda config: UnarySource(http, policy, config),
            "stream": lambda config: StreamSource(server.grpc, "sim", policy, config),
        }


def played(source: PlanSource, config: EpisodeConfig) -> EpisodeResult:
    with closing(source):
        return run_episode(FakeEnvironment(64), source, Start("fake_reach", 1, 2, 9), config)


@pytest.mark.parametrize(
    ("planner", "clock", "rtc"),
    [
        ({"mode": "off"}, ClockConfig(), "off"),
        ({"mode": "paper", **SMALL}, ClockConfig(), "off"),
        ({"mode": "paper", **SMALL}, ClockConfig("virtual", 120.0, 40.0, 0.1), "off"),
        ({"mode": "off"}, ClockConfig("virtual", 120.0, 40.0, 0.1), "rtc_guided"),
    ],
    ids=["off", "paper", "virtual", "rtc"],
)
def test_actions_are_identical_by_every_way(
    sources: dict[str, Any], planner: dict[str, Any], clock: ClockConfig, rtc: Any
) -> None:
    source_config = SourceConfig(rotation=180, options={**REPEATABLE, **planner}, rtc_mode=rtc)
    config = EpisodeConfig(replan_steps=6, num_steps_wait=2, clock=clock, rtc_mode=rtc, seed=9)
    results = {way: played(make(source_config), config) for way, make in sources.items()}
    reference = results["in-process"]
    assert reference.num_plans >= 4
    for way, result in results.items():
        assert [each.control_step for each in result.chunks] == [each.control_step for each in reference.chunks], way
        for ours, theirs in zip(result.chunks, reference.chunks, strict=True):
            assert ours.actions.tobytes() == theirs.actions.tobytes(), (way, ours.control_step)
        assert result.receipt_digests == reference.receipt_digests, way
        assert np.array_equal(result.sim_states, reference.sim_states), way


def options(server: Server, folder: Path, **flags: Any) -> Options:
    """Three tasks of the fake suite, four states each, two cells."""
    given = {"suite": ["fake_reach"], "num_trials_per_task": 4, "planner": ["off", "fixed_shrink"], "k": [1]}
    given |= {"allow_untrained": True, "service": server.grpc, "out": str(folder), "videos": 0, "seed": 3}
    return read_options(given | flags, None)


def keys(folder: Path) -> list[Any]:
    """Every episode on record, in order. `load_run` refuses one that is there twice."""
    return sorted(record.key for record in load_run(folder).records)


def but_for_times(folder: Path) -> dict[Any, Any]:
    """The records by key, without what depends on the machine."""
    return {record.key: replace(record, wall={}) for record in load_run(folder).records}


ALL_KEYS = sorted(
    EpisodeKey(cell, "fake_reach", task, state)
    for cell in ("off", "fixed-shrink")
    for task in range(3)
    for state in range(4)
)


class Watched(FakeEnvironment):
    """Calls `at_step` with the number of steps so far in all episodes."""

    def __init__(self, at_step: Callable[[int], None]) -> None:
        super().__init__(64)
        self._at_step, self._total = at_step, 0

    def step(self, action: Any) -> bool:
        self._total += 1
        self._at_step(self._total)
        return super().step(action)


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["grpc", "stream"])
def test_a_service_that_is_killed_within_an_episode_costs_no_episode(
    tmp_path: Path, tiny: Bundle, transport: str
) -> None:
    folder = tmp_path / "service"
    folder.mkdir()
    service = start(folder, "local", "--bundle", str(tiny.folder))
    restarted: list[subprocess.Popen[bytes]] = []

    def restart() -> None:
        service.process.wait()
        restarted.append(subprocess.Popen(service.process.args))  # on the same ports

    def kill(num_steps: int) -> None:
        if num_steps == 100:  # within the third episode: each has 30 steps and 10 that settle
            service.process.kill()
            threading.Thread(target=restart).start()

    try:
        asked = options(service, tmp_path / "run", transport=transport)
        with PlanClient(service.grpc) as planner:
            assert evaluate(asked, planner, partial(Watched, kill)) == 0
        assert keys(tmp_path / "run") == ALL_KEYS
        assert len(restarted) == 1
        with PlanClient(service.grpc) as planner:  # an undisturbed run has the same episodes
            evaluate(replace(asked, out=str(tmp_path / "again")), planner, partial(FakeEnvironment, 64))
        first, again = (
            {each.key: replace(each, wall={}) for each in load_run(tmp_path / name).records}
            for name in ("run", "again")
        )
        assert first == again
    finally:
        for process in (service.process, *restarted):
            process.terminate()
            process.wait()


EVALUATION = """
    import sys, time
    from pathlib import Path
    from tests.service.test_libero import Watched, options
    from wavserve.clients.plan_client import PlanClient
    from wavserve.commands.libero import evaluate

    class Server:
        grpc = sys.argv[1]

    with PlanClient(Server.grpc) as planner:
        evaluate(options(Server, Path(sys.argv[2]), num_envs=2), planner, lambda: Watched(lambda _: time.sleep(0.002)))
"""


def test_an_evaluation_that_is_killed_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(EVALUATION), server.grpc, str(tmp_path)]
    num_kills, on_record = 0, 0
    while on_record < len(ALL_KEYS):
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as evaluation:
            assert evaluation.stderr is not None
            lines = iter(evaluation.stderr.readline, "")
            done = [line for _, line in zip(range(7), lines, strict=False) if " episodes, success" in line]
            if num_kills < 3:
                evaluation.kill()
                num_kills += 1
            else:
                list(lines)
        assert done, "every run gets on"
        on_record = len(load_run(tmp_path).records)
    assert keys(tmp_path) == ALL_KEYS
    assert num_kills == 3
