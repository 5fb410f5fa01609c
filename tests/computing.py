"""Processes that compute for ever, with a processor or without one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psutil

from wavserve.system.processes import Process

FOR_EVER = "print(flush=True)\nwhile True: pass"


@contextmanager
def computing() -> Iterator[Process]:
    """A process that wants a processor all the time."""
    with subprocess.Popen([sys.executable, "-c", FOR_EVER], stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            child.stdout.readline()
            yield identity(child.pid)
        finally:
            child.kill()


@contextmanager
def starved() -> Iterator[Process]:
    """A process that computes and gets next to no time: another one of a higher priority is on its only processor."""
    with ExitStack() as stack:
        weak, strong = stack.enter_context(computing()), stack.enter_context(computing())
        for each in (weak, strong):
            os.sched_setaffinity(each.pid, {min(os.sched_getaffinity(0))})
        os.sched_setscheduler(weak.pid, os.SCHED_IDLE, os.sched_param(0))
        yield weak


def identity(pid: int) -> Process:
    """A living process of this machine, as it would report itself."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
        return Process(pid, int(stat.read().rpartition(")")[2].split()[19]))


def stop(process: Process) -> None:
    """Makes it stand still, and waits until it does."""
    psutil.Process(process.pid).suspend()
    while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
        pass
