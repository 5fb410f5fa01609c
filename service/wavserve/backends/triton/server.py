"""A Triton server as our child process: its start, what becomes of its own children, and its end.

The server never outlives this process. It is the `tritonserver` of the nvidia-pytriton wheel, run directly and without
models; models are loaded by request. Two servers on one machine share no port, no file and no shared memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tritonclient.utils import InferenceServerException

from wavserve.backends.triton import reaper, wheel
from wavserve.backends.triton.client import connect
from wavserve.core.errors import SettingsError
from wavserve.core.verbs import MODELS
from wavserve.models.arena import slabs
from wavserve.system.processes import (
    COMPUTE_ENVIRONMENT,
    Process,
    commands_with,
    ended_children,
    free_ports,
    kill,
    orphan_processes,
    orphans,
    owned_name,
    stop_signals_blocked,
)

log = logging.getLogger(__name__)

KIND = "wavserve"
"""The prefix of our files' names in /dev/shm and in the temporary folder."""
PROGRAMS = ("tritonserver", "triton_python_backend_stub")
LIVE_WITHIN_S = 60.0
EXIT_WITHIN_S = 10.0
POLL_S = 0.05
COLLECTED_WITHIN_S = 0.5
OUT_OF_MEMORY = " (out of memory?)"
START_ATTEMPTS = 3
"""A free port may be taken by another program before the server binds it."""
PORT_TAKEN = "already in use"
"""Part of the server's message then."""


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """How to start a server."""

    name: str
    """of its files in /dev/shm and in the temporary folder; see `new_name`"""
    repository: Path
    environment: Mapping[str, str]
    """of the server and its models; includes our own variables"""
    shm_bytes: int
    """shared memory for the calls of one model at the start; it grows when it is too small"""
    models_at_once: int = 1
    """models that compute at a time; on a GPU more than one would only slow each other down"""
    metrics_port: int = 0
    """of Triton's own metrics; 0: any free port"""
    traces: str = ""
    """URL of the collector that gets the spans of requests that belong to a trace; empty: none are made"""


def new_name() -> str:
    """A name for one server of this process, which tells its files from another server's and from a dead process's."""
    return f"{owned_name(KIND)}-{secrets.token_hex(4)}"


def remove_orphans() -> list[Path]:
    """Kills what servers of dead processes left running, removes their files, and returns the paths of those."""
    for process in orphan_processes(KIND, PROGRAMS):
        kill(process)
    left = [*orphans(KIND, slabs.SHM), *orphans(KIND, Path(tempfile.gettempdir()))]
    return [path for path in left if _remove(path)]


class TritonServer:
    """One server at a time: `start` may be called again after the server has exited.

    `find_ports`: number of ports -> so many free ones.
    """

    def __init__(self, config: ServerConfig, find_ports: Callable[[int], list[int]] = free_ports) -> None:
        self._config, self._find_ports = config, find_ports
        self._folder = Path(tempfile.gettempdir()) / config.name
        self._process: asyncio.subprocess.Process | None = None
        self._shm_prefix = f"{config.name}-"
        self.log = self._folder / "triton.log"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int | None:
        """Of the reaper between us and the server."""
        return None if self._process is None else self._process.pid

    def process(self) -> Process | None:
        """The server itself; None: it does not run."""
        return next(iter(commands_with(self._shm_prefix, PROGRAMS[:1])), None)

    async def start(self) -> str:
        """Starts the server without models, and returns its gRPC address.

        Raises SettingsError, with the end of the server's log, when it does not start.
        """
        attempt = 1
        while True:
            try:
                return await self._start()
            except SettingsError as error:
                if PORT_TAKEN not in str(error) or attempt == START_ATTEMPTS:
                    raise
                log.warning("%s: another attempt", error)
                attempt += 1

    async def _start(self) -> str:
        self._kill_leftovers()  # first: it frees their shared memory
        free, needed = slabs.free_bytes(slabs.SHM), len(MODELS) * self._config.shm_bytes
        if needed > free:
            raise SettingsError(
                f"triton.shm_bytes: expected at most {free / 1e6:.0f} MB for {len(MODELS)} models together, which is "
                f"what is free in {slabs.SHM}, got {needed / 1e6:.0f} MB; lower it, or use more shared memory "
                "(containers: --shm-size)"
            )
        self._folder.mkdir(mode=0o700, exist_ok=True)
        wheel.lay_out(self._folder, self._config.repository)
        http, grpc, any_port = self._find_ports(3)
        metrics = self._config.metrics_port or any_port
        # A stop signal to all our processes at once must stop only this one, which needs the server while it drains.
        # Triton would obey it, so the reaper, the server and its models inherit it blocked.
        with self.log.open("ab") as output, stop_signals_blocked():
            self._process = await asyncio.create_subprocess_exec(
                *self._reaper_command(),
                *self._server_command(http, grpc, metrics),
                env=self._environment(),
                cwd=self._folder,  # for the relative paths; and Python imports no module from the user's folder
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        url = f"127.0.0.1:{grpc}"
        try:
            async with asyncio.timeout(LIVE_WITHIN_S):
                await self._until_live(url)
        except TimeoutError:
            self.kill()
            raise SettingsError(f"tritonserver: not live after {LIVE_WITHIN_S:.0f} s: {self.tail()}") from None
        except BaseException:
            self.kill()
            raise
        log.info("the embedded Triton shows its metrics at http://127.0.0.1:%d/metrics", metrics)
        return url

    async def wait(self) -> int:
        """Waits until the server exits, and returns its exit code."""
        assert self._process is not None, "not started"
        return await self._process.wait()

    async def child_death(self) -> str:
        """Waits until a child of the server ends that has not ended yet; returns how, with the end of the log.

        Triton does not notice the death of a model's process that has not reported to it yet. A process that ends
        because its model reported an error does not count: Triton collects it at once, and reports the error itself.
        """
        if (server := self.process()) is None:
            return f"the server has exited: {self.tail()}"
        before, seen = ended_children(server.pid).keys(), set[int]()
        while not seen & (ended := ended_children(server.pid)).keys():
            seen = ended.keys() - before
            await asyncio.sleep(COLLECTED_WITHIN_S)
        code = ended[(seen & ended.keys()).pop()]
        how = f"with exit code {code}" if code >= 0 else f"by signal {-code}{OUT_OF_MEMORY if code == -9 else ''}"
        return f"a model's process ended {how}: {self.tail()}"

    def kill(self) -> None:
        """Kills the server; the next `start` or `stop` removes what it leaves behind."""
        if self._process is not None and self.running:
            self._process.send_signal(reaper.STOP)

    async def stop(self) -> None:
        """Kills the server and removes its files. A server keeps nothing that an orderly exit would save."""
        if self._process is not None and self.running:
            self.kill()
            try:
                async with asyncio.timeout(EXIT_WITHIN_S):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()  # it waits for a process that the kernel cannot end
                await self._process.wait()
        self._kill_leftovers()
        _remove(self._folder)

    def remove_unused(self) -> None:
        """Removes the shared memory of dead model processes, which Triton leaves. Not while a model is being loaded."""
        used = {word for command in commands_with(self._shm_prefix, PROGRAMS).values() for word in command.split()}
        slabs.clean(self._config.name)
        for path in slabs.SHM.glob(f"{self._shm_prefix}*-*-*-*-*"):
            if path.name not in used:
                _remove(path)

    def _kill_leftovers(self) -> None:
        """Kills what an exited server left running, and removes its shared memory.

        A model process that starts while its server exits waits for that server forever.
        """
        for process in commands_with(self._shm_prefix, PROGRAMS):
            kill(process)
        for path in slabs.SHM.glob(f"{self._shm_prefix}*"):
            _remove(path)

    def tail(self, lines: int = 5) -> str:
        """The end of the server's log in one line, at most `500 * lines` characters."""
        text = self.log.read_text(encoding="utf-8", errors="replace").splitlines() if self.log.exists() else []
        return " | ".join(line.strip() for line in text if line.strip())[-500 * lines :]

    async def _until_live(self, url: str) -> None:
        client = connect(url)
        try:
            while True:
                if not self.running:
                    raise SettingsError(f"tritonserver exited with code {await self.wait()}: {self.tail()}")
                with contextlib.suppress(InferenceServerException):
                    # another program's server may have taken the port and answer here
                    if (await client.get_server_metadata(client_timeout=1.0)).name == self._config.name:
                        return
                await asyncio.sleep(POLL_S)
        finally:
            await client.close()

    def _reaper_command(self) -> list[str]:
        """The program between us and the server, which kills the server and all its children when we die."""
        args = [os.getpid(), self._config.name, self._folder]
        return [sys.executable, "-I", "-S", reaper.__file__, *map(str, args)]

    def _server_command(self, http: int, grpc: int, metrics: int) -> list[str]:
        server = wheel.server_folder()
        return [
            str(server / "bin/tritonserver"),
            f"--id={self._config.name}",
            f"--model-repository={wheel.REPOSITORY}",
            f"--backend-directory={wheel.BACKENDS}",
            f"--cache-directory={server / 'caches'}",
            "--disable-auto-complete-config",  # auto-completion would start every model twice
            "--model-control-mode=explicit",
            *(f"--{name}-address=127.0.0.1" for name in ("http", "grpc", "metrics")),
            *(f"--{name}-port={port}" for name, port in (("http", http), ("grpc", grpc), ("metrics", metrics))),
            "--rate-limit=execution_count",
            f"--rate-limit-resource=gpu:{self._config.models_at_once}",
            "--metrics-config=summary_latencies=true",
            f"--backend-config=python,shm-default-byte-size={self._config.shm_bytes}",
            f"--backend-config=python,shm-region-prefix-name={self._shm_prefix}",
            *(_trace_flags(self._config.traces) if self._config.traces else ()),
        ]

    def _environment(self) -> dict[str, str]:
        """Triton runs the models in the first python3 on PATH and must find its library; the models see one GPU."""
        variables = dict(self._config.environment)
        folders = [str(Path(sys.executable).parent), variables.get("PATH", "")]
        variables["PATH"] = os.pathsep.join(filter(None, folders))
        libraries = [str(sysconfig.get_config_var("LIBDIR")), variables.get("LD_LIBRARY_PATH", "")]
        variables["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, libraries))
        variables = COMPUTE_ENVIRONMENT | variables
        variables["CUDA_VISIBLE_DEVICES"] = variables.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
        return variables


def _trace_flags(collector: str) -> list[str]:
    """Rate 0: of requests without a trace, such as our own test calls, none is traced."""
    return [
        "--trace-config=mode=opentelemetry",
        "--trace-config=rate=0",
        "--trace-config=level=TIMESTAMPS",
        f"--trace-config=opentelemetry,url={collector}/v1/traces",
        "--trace-config=opentelemetry,resource=service.name=wavserve-triton",
    ]


def _remove(path: Path) -> bool:
    """Removes a file or folder, and returns whether it is gone; another user's may stay."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    return not path.exists()
