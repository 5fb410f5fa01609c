"""The environment of this process, and what its children and its libraries find in it.

This is the only module that reads or changes the environment. It knows no setting, and imports no library, because a
library may read the environment as soon as it is imported.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from types import MappingProxyType

from wavserve.system import processes

PREFIX = "WAVSERVE_"
"""What the names of our own variables begin with."""

LIBRARIES: Mapping[str, str | None] = MappingProxyType(
    {
        "DIFFUSERS_ATTN_BACKEND": "native",  # others compute other numbers, some in 8 bits
        "DNNL_DEFAULT_FPMATH_MODE": None,  # on Arm it rounds float32 products to bfloat16
        "HF_HUB_OFFLINE": "1",  # a bundle has all files, so nothing may be downloaded
        "ONEDNN_DEFAULT_FPMATH_MODE": None,  # the newer name of DNNL_DEFAULT_FPMATH_MODE
        "PROMETHEUS_MULTIPROC_DIR": None,  # it moves metrics into files that outlive the process
        "prometheus_multiproc_dir": None,
        "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "upb",  # `python` takes many times as long
        "PYDANTIC_DISABLE_PLUGINS": "__all__",  # by default every plugin that is installed runs
        "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": None,  # it rounds float32 products to 10 bits
        "TORCH_DEVICE_BACKEND_AUTOLOAD": "0",  # by default every backend that is installed runs
        "USE_TF": None,  # diffusers then works without torch, so not at all
        "USE_TORCH": None,
    }
)
"""Variables with which a library would give other answers, run code that merely happens to be installed, or lose
metrics, and the value that each has in our processes. None: not set."""


def variables() -> Mapping[str, str]:
    """The environment."""
    return MappingProxyType(os.environ)


def inherited() -> dict[str, str]:
    """The environment for a child, without our own variables. The child gets those explicitly."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}


def cache_folder() -> Path:
    """This user's folder for what we can make again. It may not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wavserve"


def pin_libraries() -> None:
    """Gives every variable of LIBRARIES its value. Call it before a library is imported."""
    pin(os.environ)


def pin(variables: MutableMapping[str, str]) -> None:
    """`pin_libraries` for another environment."""
    for name, value in LIBRARIES.items():
        if value is None:
            variables.pop(name, None)
        else:
            variables[name] = value


def prepare_to_compute() -> None:
    """Sets those variables of `processes.COMPUTE_ENVIRONMENT` that are not set. Call it before torch is imported."""
    processes.prepare_to_compute(os.environ)
