"""An `Environment` whose simulator runs in a process of its own, so that several run at once and a crash stays there.

The child ends with this process, even when that is killed: both hold an end of one socket. Knows no simulator, only the
command that starts one.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from wavserve.core.errors import SimulationError, SimulatorDied
from wavserve.core.remote_errors import rebuild
from wavserve.core.resize import Pixels
from wavserve.core.simulation import Layout, Poses, Start, TaskInfo
from wavserve.simulation.messages import Arrays, Message, read, write

_MAX_LOG_BYTES = 3_000
_GRACE_S = 5.0
"""A child that ends a long call itself says where it stood. This process kills one that does not."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds after which a process counts as stuck and is killed."""

    start_s: float = 300.0
    """imports take 10 s on a free core"""
    call_s: float = 300.0
    """a first reset takes 3 s on a free core, and 25 s on a busy one"""
    close_s: float = 5.0


class SimulatorProcess:
    """Runs `command` with `variables` as its environment; the command calls `worker.serve`.

    Raises what the child's environment raises, SimulatorDied when the process ends or stands still, and SimulationError
    once it is closed. What the child prints goes to a file that nobody sees, but its end is part of SimulatorDied.
    """

    def __init__(self, command: Sequence[str], variables: Mapping[str, str], patience: Patience | None = None) -> None:
        self._patience = patience or Patience()
        self._socket, theirs = socket.socketpair()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed in `close`
        self._last_output = ""
        self._closed = False
        with theirs:
            self._process = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=self._log,
                stderr=subprocess.STDOUT,
                env=dict(variables),
                start_new_session=True,  # a key in the terminal stops the parent, which stops this process
            )
        self._answers = self._socket.makefile("rb")
        try:
            self._receive(self._patience.start_s)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return int(self._process.pid)

    def tasks(self, suite: str) -> tuple[TaskInfo, ...]:
        return tuple(TaskInfo(**task) for task in self._call("tasks", {"suite": suite}).facts["tasks"])

    def reset(self, start: Start) -> TaskInfo:
        return TaskInfo(**self._call("reset", {"start": asdict(start)}).facts["task"])

    def step(self, action: NDArray[np.floating[Any]]) -> bool:
        return bool(self._call("step", arrays={"action": np.asarray(action)}).facts["solved"])

    def images(self) -> dict[str, Pixels]:
        return dict(self._call("images").arrays)

    def projections(self) -> dict[str, NDArray[np.float64]]:
        return dict(self._call("projections").arrays)

    def state(self) -> NDArray[np.float64]:
        return self._call("state").arrays["state"]

    def sim_state(self) -> NDArray[np.float64]:
        return self._call("sim_state").arrays["sim_state"]

    def restore(self, sim_state: NDArray[np.float64]) -> None:
        self._call("restore", arrays={"sim_state": sim_state})

    def versions(self) -> dict[str, str]:
        return dict(self._call("versions").facts["versions"])

    def layout(self) -> Layout:
        answer = self._call("layout")
        relation, thing, destination = (answer.facts[name] for name in ("relation", "object", "destination"))
        names, arrays = tuple(answer.facts["names"]), answer.arrays
        return Layout(relation, thing, destination, names, arrays["owners"], arrays["boxes"])

    def poses(self) -> Poses:
        return Poses(**self._call("poses").arrays)

    def close(self) -> None:
        """Ends the process, within `close_s`. May be called twice, and while another thread waits for an answer."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # the child ends, and a waiting thread wakes
        try:
            self._process.wait(self._patience.close_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answers.close()
        self._socket.close()
        self._last_output = _end_of(self._log)
        self._log.close()

    def _call(self, name: str, facts: Mapping[str, Any] | None = None, arrays: Arrays | None = None) -> Message:
        if self._closed:
            raise SimulationError("the environment is closed")
        try:
            self._socket.settimeout(self._patience.call_s)
            call = {"call": name, "within_s": self._patience.call_s, **(facts or {})}
            write(self._socket, Message(call, arrays or {}))
        except OSError as error:
            raise self._died() from error
        return self._receive(self._patience.call_s + _GRACE_S)

    def _receive(self, within_s: float) -> Message:
        """The next answer. An answer that is not read to its end leaves nothing to go on with: the process ends."""
        self._socket.settimeout(within_s)
        try:
            answer = read(self._answers)
        except TimeoutError as error:
            self._process.kill()
            raise self._died(f"was killed: it gave no answer within {within_s:g} s") from error
        except OSError as error:
            raise self._died() from error
        except BaseException:
            self.close()
            raise
        if answer is None:
            raise self._died()
        if "error" in answer.facts:
            raise rebuild(answer.facts["error"], answer.facts["message"], answer.facts)
        return answer

    def _died(self, what: str = "") -> SimulatorDied:
        self.close()
        what = what or f"ended with code {self._process.poll()}"
        return SimulatorDied(f"the simulator's process {what}. Its last output: {self._last_output or 'none'}")


def _end_of(log: IO[bytes]) -> str:
    size = log.seek(0, os.SEEK_END)
    log.seek(max(0, size - _MAX_LOG_BYTES))
    return log.read().decode(errors="replace").strip()
