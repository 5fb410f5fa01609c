"""The folder of a run on disk: every finished episode is in it exactly once, whatever ends the program.

Knows no episode's content beyond its key. One process at a time writes a folder.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from wavserve.clients import tables
from wavserve.clients.libero.records import EPISODES_FILE, RUN_FILE, EpisodeKey, EpisodeRecord, Run, RunConfig
from wavserve.core.errors import InvalidRequest, SettingsError, shown
from wavserve.core.files import lock as lock_file
from wavserve.core.files import write_whole

_LOCK_FILE = "run.lock"


class ResultsFolder:
    """A run's folder, open for writing. A context manager. Not for several threads at once."""

    def __init__(self, folder: Path, config: RunConfig) -> None:
        """Makes the folder, or goes on with a run of the same configuration: a last line that is torn is dropped.

        Raises InvalidRequest when the folder cannot be used, another process writes it, or its run has another
        configuration; SettingsError for a file that is no run's.
        """
        self.folder = folder
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(folder)
        try:
            with _writing(folder):
                self.done = self._begin(config)
                self._episodes = os.open(folder / EPISODES_FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        except BaseException:
            os.close(self._lock)
            raise

    def _begin(self, config: RunConfig) -> set[EpisodeKey]:
        """The keys of the episodes that are on record."""
        file = self.folder / RUN_FILE
        if not file.exists():
            if (self.folder / EPISODES_FILE).exists():
                raise SettingsError(f"{self.folder}: expected {RUN_FILE} beside {EPISODES_FILE}, found none")
            write_whole(file, json.dumps(dataclasses.asdict(config), indent=2).encode() + b"\n")
        _check_same(_read_config(file), config)
        _drop_torn_line(self.folder / EPISODES_FILE)
        return {record.key for record in load_run(self.folder).records}

    def add(self, record: EpisodeRecord, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Puts an episode on record, with `arrays` beside it. Raises InvalidRequest when the disk does not take it:
        then the episode is not on record.
        """
        assert record.key not in self.done, f"{record.key} is on record"
        line = json.dumps(dataclasses.asdict(record), allow_nan=False).encode() + b"\n"
        with _writing(self.folder):
            if arrays:
                _save_arrays(record.key.states_file(self.folder), arrays)
            _append(self._episodes, line)
        self.done.add(record.key)

    def close(self) -> None:
        """Frees the folder for others."""
        os.close(self._episodes)
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def load_run(folder: Path) -> Run:
    """Reads a run, also one that is not finished. Raises SettingsError naming file and line."""
    config = _read_config(folder / RUN_FILE)
    records: dict[EpisodeKey, EpisodeRecord] = {}
    for number, line in enumerate(_lines(folder / EPISODES_FILE), 1):
        at = f"{folder / EPISODES_FILE}:{number}"
        record = tables.read(EpisodeRecord, _json(line, at), at)
        if record.key in records:
            raise SettingsError(f"{at}: expected each episode once, got {record.key} twice")
        records[record.key] = record
    return Run(config, tuple(records.values()))


def _read_config(file: Path) -> RunConfig:
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise SettingsError(f"{file}: expected a run's configuration: {error.strerror}") from error
    return tables.read(RunConfig, _json(raw, str(file)), str(file))


def _check_same(there: RunConfig, wanted: RunConfig) -> None:
    """Raises InvalidRequest naming the first difference."""
    known, asked = _flat(dataclasses.asdict(there)), _flat(dataclasses.asdict(wanted))
    for name in [*asked, *known]:
        before, now = (table.get(name, "nothing") for table in (known, asked))
        if before != now:
            expected = f"{name} = {before!r}, as the run in this folder has; or another folder"
            raise InvalidRequest("--out", expected, repr(now))


def _flat(table: object, path: str = "") -> dict[str, object]:
    """Dotted names of all values, so that a difference is named exactly. JSON has no tuples."""
    if isinstance(table, Mapping):
        parts = {(f"{path}.{key}" if path else str(key)): each for key, each in table.items()}
    elif isinstance(table, list | tuple):
        parts = {f"{path}[{i}]": each for i, each in enumerate(table)} | {f"number of {path}": len(table)}
    else:
        return {path: table}
    return {name: value for key, each in parts.items() for name, value in _flat(each, key).items()}


def _lines(file: Path) -> list[bytes]:
    """The whole lines. The writer may be at work on a last one without its end."""
    raw = file.read_bytes() if file.exists() else b""
    return raw[: raw.rfind(b"\n") + 1].splitlines()


def _drop_torn_line(file: Path) -> None:
    """Cuts off a last line that a crash left unfinished: its episode did not count."""
    raw = file.read_bytes() if file.exists() else b""
    keep = raw.rfind(b"\n") + 1
    last = raw[raw.rfind(b"\n", 0, max(keep - 1, 0)) + 1 : keep]
    if last and not _is_json(last):  # after a power failure the end may be there and the middle not
        keep -= len(last)
    if keep != len(raw):
        os.truncate(file, keep)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _json(raw: bytes, at: str) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        raise SettingsError(f"{at}: expected JSON, got {shown(raw)}") from None


def _append(file: int, line: bytes) -> None:
    """Appends a line as a whole, or not at all."""
    size = os.fstat(file).st_size
    try:
        written = os.write(file, line)
        if written != len(line):
            raise OSError(f"{written} of {len(line)} bytes were written")
        os.fsync(file)
    except OSError:
        os.ftruncate(file, size)
        raise


def _save_arrays(file: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    file.parent.mkdir(exist_ok=True)
    temporary = file.with_suffix(".tmp")
    try:
        with temporary.open("wb") as stream:
            np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
            stream.flush()
            os.fsync(stream.fileno())  # before the record is, which tells of it
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _locked(folder: Path) -> int:
    """A lock that ends with the process. Raises InvalidRequest when another one has it."""
    lock = lock_file(folder / _LOCK_FILE)
    if lock is None:
        raise InvalidRequest("--out", "a folder that no other run writes", f"{folder}, which one writes")
    return lock


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turns what the disk refuses into an error that says what to do."""
    try:
        yield
    except OSError as error:
        raise InvalidRequest("--out", "a folder that takes the records", f"{folder}: {error}") from error
