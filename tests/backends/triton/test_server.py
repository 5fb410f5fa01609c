"""A Triton server as a process: what orphans it leaves, and whether its stub passes numbers on unharmed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient

from wavserve.backends.triton.server import ServerConfig, TritonServer, new_name, remove_orphans
from wavserve.backends.triton.wheel import find_obstacle


def test_clean_up_kills_the_processes_of_a_dead_gateway_and_no_others(tmp_path: Path) -> None:
    mine = new_name()
    started = mine.split("-")[3]
    dead = mine.replace(f"-{started}-", f"-{int(started) - 1}-")  # of an earlier process with our pid
    stub = tmp_path / "triton_python_backend_stub"
    stub.symlink_to(sys.executable)
    commands = [[str(stub), dead], [str(stub), mine], [sys.executable, dead]]
    running = [
        subprocess.Popen([program, "-I", "-S", "-c", "input()", f"{name}-x"], stdin=subprocess.PIPE)
        for program, name in commands
    ]
    try:
        remove_orphans()
        assert running[0].wait(30) == -signal.SIGKILL
        assert [each.poll() for each in running[1:]] == [None, None]
    finally:
        for each in running:
            each.kill()
            each.communicate()


async def test_every_dtype_crosses_the_stub_unharmed() -> None:
    """With numpy 2 the stub's own numpy bridge gives wrong numbers without a warning, so it must not be used."""
    repository = Path(__file__).parent / "echo_repository"
    if (obstacle := find_obstacle(repository)) is not None:
        pytest.skip(f"no real Triton on this machine: {obstacle}")
    rng = np.random.default_rng(5)
    sent = {
        "float32": rng.standard_normal((300, 7), dtype=np.float32),
        "int32": rng.integers(-(2**31), 2**31, (5, 3), np.int32),
        "int64": rng.integers(-(2**62), 2**62, (1, 4), np.int64),
        "uint8": np.arange(256, dtype=np.uint8).reshape(16, 16),
    }
    sums = {"float32": sent["float32"].sum(), "uint8": 255 * 128}
    back = await echoed(repository, sent)
    for name, array in sent.items():
        np.testing.assert_array_equal(back[name], array, err_msg=name)
        assert back[name].dtype == array.dtype
    seen = dict(zip(sorted(sent), back["seen"].tolist(), strict=True))
    for name, total in sums.items():
        assert seen[name] == pytest.approx(total, rel=1e-5)


async def echoed(repository: Path, sent: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The answer of a model in a real Triton that returns its inputs, and `seen`: their sums as it received them."""
    server = TritonServer(ServerConfig(new_name(), repository, dict(os.environ), 1 << 20))
    client = InferenceServerClient(await server.start())
    try:
        await client.load_model("echo")
        inputs = []
        for name, array in sent.items():
            dtype = {"float32": "FP32"}.get(name, name.upper())
            inputs.append(InferInput(name, list(array.shape), dtype).set_data_from_numpy(array))
        result = await client.infer("echo", inputs)
        return {name: result.as_numpy(name) for name in [*sent, "seen"]}
    finally:
        await client.close()
        await server.stop()
