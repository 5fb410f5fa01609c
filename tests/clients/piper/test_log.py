"""The log: lines in order, files that rotate, a disk that is full or stands still."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path
from typing import IO, Any

from tests.clients.piper.rig import eventually
from wavserve.clients.piper import log
from wavserve.clients.piper.log import RunLog


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_lines_are_written_in_order(tmp_path: Path) -> None:
    run = RunLog(tmp_path / "run.jsonl", 10**6, 2)
    for i in range(50):
        run.write("tick", step=i, command=(0.1, 0.2))
    run.close()
    assert [line["step"] for line in lines(tmp_path / "run.jsonl")] == list(range(50))


def test_files_rotate_and_the_oldest_goes(tmp_path: Path) -> None:
    run = RunLog(tmp_path / "run.jsonl", 400, 3)
    for i in range(60):
        run.write("tick", step=i)
    run.close()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["run.jsonl", "run.jsonl.1", "run.jsonl.2"]
    kept = [line["step"] for number in (2, 1, 0) for line in lines(log.rotated(tmp_path / "run.jsonl", number))]
    assert kept == list(range(60 - len(kept), 60))
    assert all(file.stat().st_size <= 400 for file in tmp_path.iterdir())


def test_a_line_that_cannot_be_written_as_json_is_counted_and_the_log_goes_on(tmp_path: Path) -> None:
    run = RunLog(tmp_path / "run.jsonl", 10**6, 2)
    run.write("bad", value={("a", "b"): 1})
    eventually(lambda: run.num_dropped == 1)
    run.write("tick", step=1)
    run.close()
    assert [line["kind"] for line in lines(tmp_path / "run.jsonl")] == ["log_dropped", "tick"]
    assert run.num_dropped == 1


class FullDisk(io.StringIO):
    """Refuses to write while `full` is set. Keeps its text when it is closed."""

    full = True

    def close(self) -> None:
        pass

    def write(self, text: str) -> int:
        if FullDisk.full:
            raise OSError(28, "No space left on device")
        return super().write(text)


def test_a_full_disk_loses_lines_counts_them_and_the_log_goes_on(tmp_path: Path) -> None:
    FullDisk.full, files = True, []

    def opener(path: Path) -> IO[str]:
        files.append(FullDisk())
        return files[-1]

    run = RunLog(tmp_path / "run.jsonl", 10**6, 2, opener)
    for i in range(5):
        run.write("tick", step=i)
    eventually(lambda: run.num_dropped == 5)
    FullDisk.full = False
    run.write("tick", step=5)
    eventually(lambda: "step" in files[-1].getvalue())
    assert [json.loads(line).get("lines") for line in files[-1].getvalue().splitlines()] == [5, None]
    run.close()


def test_a_disk_that_stands_still_never_delays_the_writer(tmp_path: Path) -> None:
    """The opener blocks; every `write` returns all the same, and what the queue cannot hold is counted."""
    released = threading.Event()

    def opener(path: Path) -> IO[str]:
        released.wait(30)
        return path.open("a", encoding="utf-8")

    run = RunLog(tmp_path / "run.jsonl", 10**7, 2, opener)
    for i in range(log.MAX_WAITING + 100):
        run.write("tick", step=i)
    assert 99 <= run.num_dropped <= 100
    released.set()
    run.close(10)
    written = lines(tmp_path / "run.jsonl")
    assert [line["lines"] for line in written if line["kind"] == "log_dropped"] == [run.num_dropped]
