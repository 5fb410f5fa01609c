"""What processes that compute are told has its effect: in processes of their own, for it cannot be taken back."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from wavserve.system.processes import COMPUTING, prepare_to_compute

HEAPS = """
import ctypes, os, sys, tempfile, threading
from wavserve.system.processes import prepare_to_compute
if sys.argv[1] == "told":
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


def heaps(told: str) -> int:
    environment = {name: value for name, value in os.environ.items() if name not in COMPUTING}
    command = [sys.executable, "-c", HEAPS, told]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env=environment)
    return int(ran.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has heaps by the thread")
def test_all_threads_of_a_process_that_computes_share_one_heap() -> None:
    assert heaps("told") == 1 < heaps("untold")


def test_what_its_user_decided_stays() -> None:
    variables = {"GOMP_SPINCOUNT": "7", "OTHER": "x"}
    prepare_to_compute(variables)
    assert variables == COMPUTING | {"GOMP_SPINCOUNT": "7", "OTHER": "x"}
