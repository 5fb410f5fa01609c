"""The effect of `prepare_to_compute`. It cannot be undone, so it is measured in separate processes."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from wavserve.system.processes import COMPUTE_ENVIRONMENT, prepare_to_compute

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
