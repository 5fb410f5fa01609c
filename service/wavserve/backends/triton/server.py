"""A Triton server as our child: whether one can run here, how it is started, and that it never outlives us.

Called by the composition root and by `triton_health`. The server is the one in the nvidia-pytriton wheel, started bare;
its models are loaded by request. Two servers on a machine share no port, no file and no shared memory.
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

from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from wavserve.backends.triton import reaper
from wavserve.core.errors import SettingsError
from wavserve.core.verbs import MODELS
from wavserve.models.arena import slabs
from wavserve.system.processes import COMPUTING, commands_naming, end, free_ports, orphan_processes, orphans, owned_name

KIND = "wavserve"
"""What names of our files begin with, in /dev/shm and in the folder for temporary files."""
PROGRAMS = ("tritonserver", "triton_python_backend_stub")
MIN_GLIBC = (2, 35)
LIVE_WITHIN_S = 60.0
EXIT_WITHIN_S = 5
POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """How a server is started."""

    name: str
    """of its files in /dev/shm and in the folder for temporary files; see `new_name`"""
    repository: Path
    environment: Mapping[str, str]
    """of the server and its models, our own variables among them"""
    shm_bytes: int
    """shared memory a model's calls have from the start; it grows where that is too little"""
    models_at_once: int = 1
    """that compute; on a GPU they would only be in each other's way"""


def why_not(repository: Path) -> str | None:
    """Why no embedded Triton can run on this machine; None when one can."""
    return next(_obstacles(repository), None)


def new_name() -> str:
    """For one server of this process: its files are told from another's, and from a dead process's."""
    return f"{owned_name(KIND)}-{secrets.token_hex(4)}"


def clean_up() -> list[Path]:
    """Ends what servers of dead processes left running, removes their files, and tells which those were."""
    for process in orphan_processes(KIND, PROGRAMS):
        end(process)
    left = [*orphans(KIND, slabs.SHM), *orphans(KIND, Path(tempfile.gettempdir()))]
    return [path for path in left if _remove(path)]


class TritonServer:
    """One server after another: `start` may be called again once it ended."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._folder = Path(tempfile.gettempdir()) / config.name
        self._process: asyncio.subprocess.Process | None = None
        self._own = f"{config.name}-"  # what the names of its shared memory begin with
        self.log = self._folder / "triton.log"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int | None:
        """Of the reaper before the server."""
        return None if self._process is None else self._process.pid

    async def start(self) -> str:
        """Starts it without models and returns its gRPC address. Raises SettingsError with its last words."""
        self._end_leftovers()  # first: what they hold is free then
        free, needed = slabs.free_bytes(slabs.SHM), len(MODELS) * self._config.shm_bytes
        if needed > free:
            raise SettingsError(
                f"triton.shm_bytes: expected {len(MODELS)} models' calls to fit the {free / 1e6:.0f} MB that are free "
                f"in {slabs.SHM}, got {needed / 1e6:.0f} MB in all; more shared memory (containers: --shm-size)"
            )
        self._folder.mkdir(mode=0o700, exist_ok=True)
        _link_stub()
        http, grpc, metrics = free_ports(3)
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._reaper(),
                *self._command(http, grpc, metrics),
                env=self._environment(),
                cwd=self._folder,  # Python finds modules where it runs: nothing of the user's folder is meant
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
        """Its exit code, once it ended."""
        assert self._process is not None, "not started"
        return await self._process.wait()

    def kill(self) -> None:
        """Ends it without asking; what it leaves, the next `start` or `stop` removes."""
        if self._process is not None and self.running:
            self._process.kill()

    async def stop(self) -> None:
        """Asks it to end, insists after a while, and removes what it left."""
        if self._process is not None and self.running:
            self._process.terminate()
            await self._process.wait()
        self._end_leftovers()
        _remove(self._folder)

    def remove_unused(self) -> None:
        """Removes the shared memory of models' processes that died: Triton leaves it. Not while a model is loaded."""
        used = {word for command in commands_naming(self._own, PROGRAMS).values() for word in command.split()}
        slabs.clean(self._config.name)
        for path in slabs.SHM.glob(f"{self._own}*-*-*-*-*"):
            if path.name not in used:
                _remove(path)

    def _end_leftovers(self) -> None:
        """Ends what a server that is gone left running, and removes its shared memory.

        A model's process that was just being started waits for its server's word, forever.
        """
        for process in commands_naming(self._own, PROGRAMS):
            end(process)
        for path in slabs.SHM.glob(f"{self._own}*"):
            _remove(path)

    def tail(self, lines: int = 5) -> str:
        told = self.log.read_text(encoding="utf-8", errors="replace").splitlines() if self.log.exists() else []
        return " | ".join(line.strip() for line in told if line.strip())[-500 * lines :]

    async def _until_live(self, url: str) -> None:
        client = InferenceServerClient(url)
        try:
            while True:
                if not self.running:
                    raise SettingsError(f"tritonserver ended with code {await self.wait()}: {self.tail()}")
                try:
                    if await client.is_server_live(client_timeout=1.0):
                        return
                except InferenceServerException:
                    await asyncio.sleep(POLL_S)
        finally:
            await client.close()

    def _reaper(self) -> list[str]:
        """What stands between us and the server, and ends it with all its children when we are gone."""
        own = [os.getpid(), self._config.name, self._folder, 2 * EXIT_WITHIN_S]
        return [sys.executable, "-I", "-S", reaper.__file__, *map(str, own)]

    def _command(self, http: int, grpc: int, metrics: int) -> list[str]:
        server = _server_folder()
        assert server is not None, "asked before"
        return [
            str(server / "bin/tritonserver"),
            f"--model-repository={self._config.repository.resolve()}",
            f"--backend-directory={server / 'backends'}",
            f"--cache-directory={server / 'caches'}",
            "--disable-auto-complete-config",  # it would start every model twice
            "--model-control-mode=explicit",
            *(f"--{name}-address=127.0.0.1" for name in ("http", "grpc", "metrics")),
            *(f"--{name}-port={port}" for name, port in (("http", http), ("grpc", grpc), ("metrics", metrics))),
            f"--exit-timeout-secs={EXIT_WITHIN_S}",
            "--rate-limit=execution_count",
            f"--rate-limit-resource=gpu:{self._config.models_at_once}",
            "--metrics-config=summary_latencies=true",
            f"--backend-config=python,shm-default-byte-size={self._config.shm_bytes}",
            f"--backend-config=python,shm-region-prefix-name={self._own}",
        ]

    def _environment(self) -> dict[str, str]:
        """The models run in the first python3 on PATH, whose library the loader must find; they see one GPU."""
        given = dict(self._config.environment)
        given["PATH"] = os.pathsep.join(filter(None, [str(Path(sys.executable).parent), given.get("PATH", "")]))
        libraries = [str(sysconfig.get_config_var("LIBDIR")), given.get("LD_LIBRARY_PATH", "")]
        given["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, libraries))
        given = COMPUTING | given
        given["CUDA_VISIBLE_DEVICES"] = given.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
        return given


def _obstacles(repository: Path) -> Iterator[str]:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        yield f"it needs Linux on x86-64, this is {sys.platform} on {platform.machine()}"
    name, version = platform.libc_ver()
    if name != "glibc" or tuple(map(int, version.split(".")[:2])) < MIN_GLIBC:
        yield f"it needs glibc {'.'.join(map(str, MIN_GLIBC))} or newer, this is {name or 'another libc'} {version}"
    server = _server_folder()
    if server is None:
        yield "the wheel nvidia-pytriton is not installed (make install does)"
        return
    if not _stub(server).exists():
        yield f"the wheel has no stub for Python {_python()}"
    if not _has_libpython():
        yield f"libpython{_python()} is not there as a shared library that Triton's stub could load"
    if not (Path(sys.executable).parent / "python3").exists():
        yield f"there is no python3 beside {sys.executable}"
    linked = server / "backends/python" / _stub(server).name
    if not linked.exists() and not os.access(linked.parent, os.W_OK):
        yield f"{linked.parent} has no stub and cannot be written"
    if not repository.is_dir():
        yield f"there is no model repository {repository}"
    if not os.access(slabs.SHM, os.W_OK):
        yield f"{slabs.SHM} cannot be written"


def _server_folder() -> Path | None:
    """Where the wheel is; found without importing it, for that would want packages nobody needs here."""
    found = importlib.util.find_spec("pytriton")
    return None if found is None or found.origin is None else Path(found.origin).parent / "tritonserver"


def _stub(server: Path) -> Path:
    return server / "python_backend_stubs" / _python() / "triton_python_backend_stub"


def _python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _has_libpython() -> bool:
    library = str(sysconfig.get_config_var("INSTSONAME"))
    beside = Path(str(sysconfig.get_config_var("LIBDIR"))) / library
    return ".so" in library and (beside.exists() or ctypes.util.find_library(f"python{_python()}") is not None)


def _link_stub() -> None:
    """Triton looks for the stub beside its backend; the wheel keeps one for each Python elsewhere."""
    server = _server_folder()
    assert server is not None, "asked before"
    link = server / "backends/python" / _stub(server).name
    if not link.exists():
        own = link.with_name(f"{link.name}.{os.getpid()}")
        own.symlink_to(_stub(server))
        own.replace(link)  # another start may do the same


def _remove(path: Path) -> bool:
    """Whether it is gone now; another user's stays."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    return not path.exists()
