"""A run's folder: what a crash, a full disk, another process and another configuration do to it."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.clients.libero.examples import CONFIG, record_of
from wavserve.clients.libero.records import EpisodeKey, Spread
from wavserve.clients.libero.results import ResultsFolder, load_run
from wavserve.core.errors import InvalidRequest, SettingsError

KEY = EpisodeKey("off", "fake_reach", 0, 0)


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    spread = Spread.of([1.0, 2.0, 4.0])
    records = (record_of(seam_jump=spread), record_of(state_index=1, success=False, plan_latency_ms=spread))
    with ResultsFolder(tmp_path / "run", CONFIG) as results:
        for record in records:
            results.add(record, {})
    run = load_run(tmp_path / "run")
    assert run.config == CONFIG
    assert run.records == records


def test_a_run_goes_on_with_what_is_on_record(tmp_path: Path) -> None:
    with ResultsFolder(tmp_path, CONFIG) as results:
        results.add(record_of(), {})
    with ResultsFolder(tmp_path, CONFIG) as results:
        assert results.done == {KEY}
        results.add(record_of(cell="paper"), {})
    assert [record.cell for record in load_run(tmp_path).records] == ["off", "paper"]


@pytest.mark.parametrize("torn", [b'{"suite": "fake', b'{"suite": "fake"}'[:-1], b"\0" * 40 + b"\n", b"\n"])
def test_a_torn_last_line_is_dropped(tmp_path: Path, torn: bytes) -> None:
    with ResultsFolder(tmp_path, CONFIG) as results:
        results.add(record_of(), {})
    with (tmp_path / "episodes.jsonl").open("ab") as file:
        file.write(torn)
    with ResultsFolder(tmp_path, CONFIG) as results:
        assert results.done == {KEY}
        results.add(record_of(state_index=1), {})
    assert [record.state_index for record in load_run(tmp_path).records] == [0, 1]


def test_a_first_line_that_is_torn_is_dropped(tmp_path: Path) -> None:
    ResultsFolder(tmp_path, CONFIG).close()
    (tmp_path / "episodes.jsonl").write_bytes(b'{"suite"')
    with ResultsFolder(tmp_path, CONFIG) as results:
        assert results.done == set()
    assert (tmp_path / "episodes.jsonl").read_bytes() == b""


def test_a_broken_line_in_the_middle_is_an_error(tmp_path: Path) -> None:
    with ResultsFolder(tmp_path, CONFIG) as results:
        results.add(record_of(), {})
        results.add(record_of(state_index=1), {})
    lines = (tmp_path / "episodes.jsonl").read_text().splitlines()
    (tmp_path / "episodes.jsonl").write_text("\n".join([lines[0][:-5], lines[1], ""]))
    with pytest.raises(SettingsError, match=r"episodes.jsonl:1: expected JSON"):
        ResultsFolder(tmp_path, CONFIG)


def test_an_episode_that_is_there_twice_is_an_error(tmp_path: Path) -> None:
    with ResultsFolder(tmp_path, CONFIG) as results:
        results.add(record_of(), {})
    file = tmp_path / "episodes.jsonl"
    file.write_text(file.read_text() * 2)
    with pytest.raises(SettingsError, match=r"episodes.jsonl:2: expected each episode once"):
        load_run(tmp_path)


def test_an_unknown_key_in_a_record_is_named(tmp_path: Path) -> None:
    with ResultsFolder(tmp_path, CONFIG) as results:
        results.add(record_of(), {})
    file = tmp_path / "episodes.jsonl"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"sucess": 1}) + "\n")
    with pytest.raises(SettingsError, match=r"sucess: unknown key; did you mean success"):
        load_run(tmp_path)


@pytest.mark.parametrize(
    ("changes", "name", "before", "now"),
    [
        ({"seed": 8}, "seed", "7", "8"),
        ({"replan_steps": 8}, "replan_steps", "4", "8"),
        ({"max_steps": 100}, "max_steps", "None", "100"),
        ({"policy_digest": "e" * 64}, "policy_digest", "'ddd", "'eee"),
        ({"versions": {"wavserve": "2", "simulator": "fake 1"}}, "versions.wavserve", "'1'", "'2'"),
        ({"versions": {"wavserve": "1"}}, "versions.simulator", "'fake 1'", "'nothing'"),
        ({"cells": CONFIG.cells[:1]}, "number of cells", "2", "1"),
        (
            {"cells": (CONFIG.cells[0], replace(CONFIG.cells[1], latency_ms=5.0))},
            r"cells\[1\].latency_ms",
            "0.0",
            "5.0",
        ),
        ({"policy_digest": "d" * 63 + "e"}, "policy_digest", "'d{64}'", "'d{63}e'"),
        ({"suites": ("fake_other",)}, r"suites\[0\]", "'fake_reach'", "'fake_other'"),
    ],
)
def test_a_run_of_another_configuration_is_refused(
    tmp_path: Path, changes: dict[str, Any], name: str, before: str, now: str
) -> None:
    with ResultsFolder(tmp_path, CONFIG) as results:
        results.add(record_of(), {})
    content = (tmp_path / "episodes.jsonl").read_bytes()
    with pytest.raises(InvalidRequest, match=rf"--out: expected {name} = {before}.*, got {now}"):
        ResultsFolder(tmp_path, replace(CONFIG, **changes))
    assert (tmp_path / "episodes.jsonl").read_bytes() == content
    ResultsFolder(tmp_path, CONFIG).close()  # the refusal keeps no lock


def test_records_without_a_configuration_are_refused(tmp_path: Path) -> None:
    (tmp_path / "episodes.jsonl").write_text("")
    with pytest.raises(SettingsError, match=r"expected run\.json beside episodes\.jsonl"):
        ResultsFolder(tmp_path, CONFIG)


def test_a_folder_is_written_by_one_run_at_a_time(tmp_path: Path) -> None:
    with (
        ResultsFolder(tmp_path, CONFIG),
        pytest.raises(InvalidRequest, match="--out: expected a folder that no other run writes"),
    ):
        ResultsFolder(tmp_path, CONFIG)
    ResultsFolder(tmp_path, CONFIG).close()


def test_a_killed_run_leaves_its_records_and_no_lock(tmp_path: Path) -> None:
    """The child has a child of its own, as a run has simulators. It must not keep the lock."""
    program = """
        import subprocess, sys, time
        from pathlib import Path
        from tests.clients.libero.examples import CONFIG, record_of
        from wavserve.clients.libero.results import ResultsFolder

        results = ResultsFolder(Path(sys.argv[1]), CONFIG)
        results.add(record_of(), {})
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        print(child.pid, flush=True)
        time.sleep(60)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        child = int(killed.stdout.readline())
        killed.kill()
        killed.wait()
    try:
        with ResultsFolder(tmp_path, CONFIG) as results:
            assert results.done == {KEY}
    finally:
        os.kill(child, signal.SIGKILL)


@contextmanager
def full_disk(num_bytes: int) -> Iterator[None]:
    """No file of this process may grow beyond this size. Python ignores the signal, so a write fails or is short."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 1, 100])
def test_an_episode_does_not_count_when_the_disk_is_full(tmp_path: Path, room: int) -> None:
    with ResultsFolder(tmp_path, CONFIG) as results:
        results.add(record_of(), {})
        content = (tmp_path / "episodes.jsonl").read_bytes()
        with (
            full_disk(len(content) + room),
            pytest.raises(InvalidRequest, match="--out: expected a folder that takes the records"),
        ):
            results.add(record_of(state_index=1), {})
        assert (tmp_path / "episodes.jsonl").read_bytes() == content
        results.add(record_of(state_index=1), {})  # there is room again
    assert [record.state_index for record in load_run(tmp_path).records] == [0, 1]


def test_states_that_do_not_fit_leave_nothing(tmp_path: Path) -> None:
    states = np.random.default_rng(0).random((1000, 10))
    with ResultsFolder(tmp_path, CONFIG) as results:
        with full_disk(10_000), pytest.raises(InvalidRequest, match="--out"):
            results.add(record_of(), {"states": states})
        assert list((tmp_path / "states").iterdir()) == []
        assert (tmp_path / "episodes.jsonl").read_bytes() == b""
        results.add(record_of(), {"states": states})
    with np.load(KEY.states_file(tmp_path)) as loaded:
        assert (loaded["states"] == states).all()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidRequest, match="--out: expected a folder that takes the records"):
        ResultsFolder(tmp_path / "file" / "run", CONFIG)


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"run.json: expected a run's configuration"):
        load_run(tmp_path)
