"""The Triton server in the wheel nvidia-pytriton: whether this machine can run it, and a folder that it can run in.

Knows files and folders, no processes. The wheel is not imported: its import needs packages that are not used here.
"""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import platform
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from wavserve.models.arena import slabs

MIN_GLIBC = (2, 35)
REPOSITORY = "repository"
BACKENDS = "wheel/pytriton/tritonserver/backends"
"""Names in the folder of `lay_out`, relative to it."""


def find_obstacle(repository: Path) -> str | None:
    """Why this machine cannot run an embedded Triton; None when it can."""
    return next(_obstacles(repository), None)


def server_folder() -> Path:
    """Of the server in the wheel; `find_obstacle` says whether there is one."""
    found = _find_server()
    assert found is not None, "checked by find_obstacle"
    return found


def lay_out(folder: Path, repository: Path) -> None:
    """Links the models and the Python backend into a server's working folder, at REPOSITORY and BACKENDS.

    Triton pastes both paths into a shell command, so they must have no character that a shell reads: a server gets them
    relative to its working folder. The backend finds the wheel's libraries four folders up. The wheel has a stub for
    every version of Python; the backend takes the one beside it.
    """
    server = server_folder()
    backend = folder / BACKENDS / "python"
    backend.mkdir(parents=True, exist_ok=True)
    _link(folder / REPOSITORY, repository.resolve())
    _link(folder / "wheel/nvidia_pytriton.libs", server.parents[1] / "nvidia_pytriton.libs")
    _link(backend / _stub(server).name, _stub(server))
    for name in ("libtriton_python.so", "triton_python_backend_utils.py"):
        _link(backend / name, server / "backends/python" / name)


def _obstacles(repository: Path) -> Iterator[str]:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        yield f"it needs Linux on x86-64, this is {sys.platform} on {platform.machine()}"
    name, version = platform.libc_ver()
    if name != "glibc" or tuple(map(int, version.split(".")[:2])) < MIN_GLIBC:
        yield f"it needs glibc {'.'.join(map(str, MIN_GLIBC))} or newer, this is {name or 'another libc'} {version}"
    server = _find_server()
    if server is None:
        yield "the wheel nvidia-pytriton is not installed (make install installs it)"
        return
    if not _stub(server).exists():
        yield f"the wheel has no stub for Python {_python()}"
    if not _has_libpython():
        yield f"there is no shared library libpython{_python()}, which Triton's stub must load"
    if not (Path(sys.executable).parent / "python3").exists():
        yield f"there is no python3 beside {sys.executable}"
    yield from _unusable_folders()
    if shutil.which("bash") is None:
        yield "there is no bash on PATH, which Triton starts its stubs with"
    if not repository.is_dir():
        yield f"there is no model repository {repository}"
    if not os.access(slabs.SHM, os.W_OK):
        yield f"{slabs.SHM} is not writable"


def _unusable_folders() -> Iterator[str]:
    """Folders that Triton's stub cannot find or use. Spaces and a shell's special characters are harmless in others.

    The dynamic linker reads ":", ";" and "$" in LD_LIBRARY_PATH; PATH is split at ":". The stub's Python always runs in
    the C locale, and the stub ends when a folder of that Python is not ASCII.
    """
    library, program = str(sysconfig.get_config_var("LIBDIR")), str(Path(sys.executable).parent)
    for folder, split_at in ((library, ":;$"), (program, ":")):
        if any(each in folder for each in split_at):
            yield f"the path {folder} has one of the characters {split_at}"
    if not program.isascii():
        yield f"Triton's stub cannot run a Python whose path is not ASCII, this is {program}"


def _find_server() -> Path | None:
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


def _link(path: Path, target: Path) -> None:
    path.unlink(missing_ok=True)  # of an earlier server of this process
    path.symlink_to(target)
