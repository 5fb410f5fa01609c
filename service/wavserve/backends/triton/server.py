"""A Triton server as our child process: whether this machine can run one, its start, and its end.

The server never outlives this process. It is the `tritonserver` of the nvidia-pytriton wheel, run directly and without
models; models are loaded by request. Two servers on one machine share no port, no file and no shared memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes.util
import importlib.util
import os
import platform
import secrets
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tritonclient.utils import InferenceServerException

from wavserve.backends.triton import reaper
from wavserve.backends.triton.client import connect
from wavserve.core.errors import SettingsError
from wavserve.core.verbs import MODELS
from wavserve.models.arena import slabs
from wavserve.system.processes import (
    COMPUTE_ENVIRONMENT,
    commands_with,
    free_ports,
    kill,
    orphan_processes,
    orphans,
    owned_name,
)

KIND = "wavserve"
"""The prefix of our files' names in /dev/shm and in the temporary folder."""
PROGRAMS = ("tritonserver", "triton_python_backend_stub")
MIN_GLIBC = (2, 35)
LIVE_WITHIN_S = 60.0
EXIT_WITHIN_S = 5
POLL_S = 0.05


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


def find_obstacle(repository: Path) -> str | None:
    """Why this machine cannot run an embedded Triton; None when it can."""
    return next(_obstacles(repository), None)


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
    """One server at a time: `start` may be called again after the server has exited."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
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

    async def start(self) -> str:
        """Starts the server without models, and returns its gRPC address.

        Raises SettingsError, with the end of the server's log, when it does not start.
        """
        self._kill_leftovers()  # first: it frees their shared memory
        free, needed = slabs.free_bytes(slabs.SHM), len(MODELS) * self._config.shm_bytes
        if needed > free:
            raise SettingsError(
                f"triton.shm_bytes: expected at most {free / 1e6:.0f} MB for {len(MODELS)} models together, which is "
                f"what is free in {slabs.SHM}, got {needed / 1e6:.0f} MB; lower it, or use more shared memory "
                "(containers: --shm-size)"
            )
        self._folder.mkdir(mode=0o700, exist_ok=True)
        _link_stub()
        http, grpc, metrics = free_ports(3)
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._reaper_command(),
                *self._server_command(http, grpc, metrics),
                env=self._environment(),
                cwd=self._folder,  # so that Python imports no module from the user's folder
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
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
        return url

    async def wait(self) -> int:
        """Waits until the server exits, and returns its exit code."""
        assert self._process is not None, "not started"
        return await self._process.wait()

    def kill(self) -> None:
        """Kills the server; the next `start` or `stop` removes what it leaves behind."""
        if self._process is not None and self.running:
            self._process.kill()

    async def stop(self) -> None:
        """Asks the server to exit, kills it if it takes too long, and removes its files."""
        if self._process is not None and self.running:
            self._process.terminate()
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
                try:
                    if await client.is_server_live(client_timeout=1.0):
                        return
                except InferenceServerException:
                    await asyncio.sleep(POLL_S)
        finally:
            await client.close()

    def _reaper_command(self) -> list[str]:
        """The program between us and the server, which kills the server and all its children when we die."""
        args = [os.getpid(), self._config.name, self._folder, 2 * EXIT_WITHIN_S]
        return [sys.executable, "-I", "-S", reaper.__file__, *map(str, args)]

    def _server_command(self, http: int, grpc: int, metrics: int) -> list[str]:
        server = _server_folder()
        assert server is not None, "checked by find_obstacle"
        return [
            str(server / "bin/tritonserver"),
            f"--model-repository={self._config.repository.resolve()}",
            f"--backend-directory={server / 'backends'}",
            f"--cache-directory={server / 'caches'}",
            "--disable-auto-complete-config",  # auto-completion would start every model twice
            "--model-control-mode=explicit",
            *(f"--{name}-address=127.0.0.1" for name in ("http", "grpc", "metrics")),
            *(f"--{name}-port={port}" for name, port in (("http", http), ("grpc", grpc), ("metrics", metrics))),
            f"--exit-timeout-secs={EXIT_WITHIN_S}",
            "--rate-limit=execution_count",
            f"--rate-limit-resource=gpu:{self._config.models_at_once}",
            "--metrics-config=summary_latencies=true",
            f"--backend-config=python,shm-default-byte-size={self._config.shm_bytes}",
            f"--backend-config=python,shm-region-prefix-name={self._shm_prefix}",
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


def _obstacles(repository: Path) -> Iterator[str]:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        yield f"it needs Linux on x86-64, this is {sys.platform} on {platform.machine()}"
    name, version = platform.libc_ver()
    if name != "glibc" or tuple(map(int, version.split(".")[:2])) < MIN_GLIBC:
        yield f"it needs glibc {'.'.join(map(str, MIN_GLIBC))} or newer, this is {name or 'another libc'} {version}"
    server = _server_folder()
    if server is None:
        yield "the wheel nvidia-pytriton is not installed (make install installs it)"
        return
    if not _stub(server).exists():
        yield f"the wheel has no stub for Python {_python()}"
    if not _has_libpython():
        yield f"there is no shared library libpython{_python()}, which Triton's stub must load"
    if not (Path(sys.executable).parent / "python3").exists():
        yield f"there is no python3 beside {sys.executable}"
    linked = server / "backends/python" / _stub(server).name
    if not linked.exists() and not os.access(linked.parent, os.W_OK):
        yield f"{linked.parent} has no stub and is not writable"
    if not repository.is_dir():
        yield f"there is no model repository {repository}"
    if not os.access(slabs.SHM, os.W_OK):
        yield f"{slabs.SHM} is not writable"


def _server_folder() -> Path | None:
    """The server in the wheel. The wheel is not imported: its import needs packages that are not used here."""
    spec = importlib.util.find_spec("pytriton")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "tritonserver"


def _stub(server: Path) -> Path:
    return server / "python_backend_stubs" / _python() / "triton_python_backend_stub"


def _python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _has_libpython() -> bool:
    library = str(sysconfig.get_config_var("INSTSONAME"))
    installed = Path(str(sysconfig.get_config_var("LIBDIR"))) / library
    return ".so" in library and (installed.exists() or ctypes.util.find_library(f"python{_python()}") is not None)


def _link_stub() -> None:
    """Links the stub for this Python to where Triton looks for it, beside its backend; the wheel keeps it elsewhere."""
    server = _server_folder()
    assert server is not None, "checked by find_obstacle"
    link = server / "backends/python" / _stub(server).name
    if not link.exists():
        temporary = link.with_name(f"{link.name}.{os.getpid()}")
        temporary.symlink_to(_stub(server))
        temporary.replace(link)  # atomic: another start may do the same


def _remove(path: Path) -> bool:
    """Removes a file or folder, and returns whether it is gone; another user's may stay."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    return not path.exists()
