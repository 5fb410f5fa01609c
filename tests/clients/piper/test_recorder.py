"""What a run reports to the service: each report covers the steps since the one before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.clients.chunks import chunk_of
from tests.clients.piper.stage import config
from wavserve.clients.piper.log import RunLog
from wavserve.clients.piper.mailbox import Arrived
from wavserve.clients.piper.recorder import Recorder, Tick
from wavserve.clients.player import Command
from wavserve.core.control import ExecutionReport, HoldReason

ACTION = np.zeros(14)


class Bench:
    """A recorder, and ticks at 10 Hz."""

    def __init__(self, log: RunLog) -> None:
        self.recorder = Recorder(config(), log)
        self.step = 0

    def tick(self, command: Command, reason: HoldReason | None = None) -> ExecutionReport | None:
        tick = Tick(100.0 + self.step / 10, 0.0, "ready", "", self.step, command, ACTION)
        self.step += 1
        self.recorder.add(tick, waits=True)
        return self.recorder.report(tick, reason)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    log = RunLog(tmp_path / "run.jsonl", 10**6, 1)
    yield Bench(log)
    log.close()


def played(chunk_id: str, clamped: tuple[int, ...] = (), seam_jump: float | None = None) -> Command:
    return Command(ACTION, "chunk", 0, chunk_id, clamped, seam_jump=seam_jump)


def test_a_report_counts_the_steps_since_the_report_before(bench: Bench) -> None:
    bench.tick(played("a"))
    reports = [bench.tick(played("a", clamped=(3,))) for _ in range(30)]
    made = [report for report in reports if report is not None]
    assert [report.clamped_steps for report in made] == [10, 10, 10]
    assert [report.executed_to_step - report.executed_from_step for report in made] == [10, 10, 10]


def test_starved_steps_are_reported_once(bench: Bench) -> None:
    bench.tick(played("a"))
    hold = Command(ACTION, "hold", starved=True)
    reports = [bench.tick(hold, HoldReason.NO_CHUNK) for _ in range(41)]
    assert sum(report.starved_steps for report in reports if report is not None) == 41


def test_each_chunk_is_reported_at_once_with_its_age_and_seam(bench: Bench) -> None:
    bench.tick(played("a", seam_jump=0.5))
    chunk = chunk_of(np.zeros((5, 14), np.float32), chunk_id="b", captured_mono_ns=99_800_000_000)
    bench.recorder.arrived(Arrived(chunk, 0.1), "", 5, is_approaching=False)
    report = bench.tick(played("b", seam_jump=0.25))
    assert report is not None
    assert (report.chunk_id, report.seam_jump) == ("b", 0.25)
    assert report.chunk_age_ms == pytest.approx(300.0)


def test_the_beginning_and_the_end_of_a_hold_are_reported_at_once(bench: Bench) -> None:
    bench.tick(played("a"))
    began = bench.tick(Command(ACTION, "hold"), HoldReason.LINK_LOST)
    assert began is not None
    assert (began.hold_reason, began.chunk_id, began.seam_jump) == (HoldReason.LINK_LOST, "", 0.0)
    assert bench.tick(Command(ACTION, "hold"), HoldReason.LINK_LOST) is None
    ended = bench.tick(played("a"))
    assert ended is not None
    assert ended.hold_reason is None
