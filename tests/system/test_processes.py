"""What sets a process apart from another, and the effect of `prepare_to_compute`.

That effect cannot be undone, so it is measured in separate processes.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from wavserve.system.processes import (
    COMPUTE_ENVIRONMENT,
    Process,
    commands_with,
    orphans,
    owned_name,
    prepare_to_compute,
)

needs_proc = pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="there is no /proc")
COUNT_HEAPS = """
import ctypes, os, sys, tempfile, threading
from wavserve.system.processes import prepare_to_compute
if sys.argv[1] == "prepared":
    prepare_to_compute(os.environ)
libc, met = ctypes.CDLL(None), threading.Barrier(4)
libc.malloc.restype = ctypes.c_void_p
def allocate():
    libc.malloc(1000)
    met.wait()
threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc.fopen.restype = ctypes.c_void_p
libc.malloc_info.argtypes, libc.fclose.argtypes = (ctypes.c_int, ctypes.c_void_p), (ctypes.c_void_p,)
with tempfile.NamedTemporaryFile() as file:
    stream = libc.fopen(file.name.encode(), b"w")
    libc.malloc_info(0, stream)
    libc.fclose(stream)
    print(file.read().count(b"<heap "))
"""


def num_heaps(mode: str) -> int:
    """Number of glibc heaps after four threads have allocated memory; `mode` is `prepared` or `unprepared`."""
    environment = {name: value for name, value in os.environ.items() if name not in COMPUTE_ENVIRONMENT}
    command = [sys.executable, "-c", COUNT_HEAPS, mode]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env=environment)
    return int(ran.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has one heap per thread")
def test_all_threads_of_a_process_that_computes_share_one_heap() -> None:
    assert num_heaps("prepared") == 1 < num_heaps("unprepared")


def test_a_variable_that_the_user_set_is_kept() -> None:
    variables = {"GOMP_SPINCOUNT": "7", "OTHER": "x"}
    prepare_to_compute(variables)
    assert variables == COMPUTE_ENVIRONMENT | {"GOMP_SPINCOUNT": "7", "OTHER": "x"}


@needs_proc
def test_files_of_living_processes_are_no_orphans(tmp_path: Path) -> None:
    mine = owned_name("kind")
    pid, started = mine.rsplit("-", 2)[1:]
    dead = mine.replace(f"-{pid}-{started}", f"-{pid}-{int(started) - 1}")  # the same pid, an earlier process
    elsewhere = mine.replace("kind-", "kind-1")  # of another pid namespace, whose processes are unknown here
    for name in (mine, f"{mine}-x", f"{dead}-y", elsewhere, "kind-z", "other-1-2-3"):
        (tmp_path / name).touch()
    assert [path.name for path in orphans("kind", tmp_path)] == [f"{dead}-y"]


@needs_proc
def test_a_process_is_known_by_its_pid_and_start_time() -> None:
    me = Process.me()
    assert me.alive
    assert not Process(me.pid, me.started + 1).alive
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        other = Process(child.pid, int(Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19]))
        assert other.alive
        child.kill()
    assert not other.alive


@needs_proc
def test_a_process_name_that_is_not_utf_8_is_handled() -> None:
    """The kernel cuts names at 15 bytes, which may be in the middle of a letter."""
    rename = "import ctypes; ctypes.CDLL(None).prctl(15, 'ж'.encode() * 8); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", rename], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as odd:
        assert odd.stdout is not None
        odd.stdout.readline()
        matching = commands_with("prctl(15", {Path(sys.executable).name})
        assert [process.pid for process in matching] == [odd.pid]
        odd.communicate("\n")
