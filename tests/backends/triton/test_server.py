"""A Triton server as a process: what orphans it leaves, and whether its stub passes numbers on unharmed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient

from wavserve.backends.triton.server import ServerConfig, TritonServer, new_name, remove_orphans
from wavserve.backends.triton.wheel import find_obstacle
from wavserve.core.errors import SettingsError
from wavserve.system.processes import free_ports

ECHO = Path(__file__).parent / "echo_repository"


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


async def test_models_are_found_whatever_their_path_is_called(tmp_path: Path) -> None:
    """Triton starts a stub by a shell command."""
    needs_triton(ECHO)
    repository = tmp_path / 'it\'s a $HOME; `true` & "ü"'
    shutil.copytree(ECHO, repository)
    sent = {dtype: np.arange(4, dtype=dtype).reshape(2, 2) for dtype in ("float32", "int32", "int64", "uint8")}
    back = await echoed(repository, sent)
    for name, array in sent.items():
        np.testing.assert_array_equal(back[name], array, err_msg=name)


async def test_the_log_tells_where_tritons_metrics_are(caplog: pytest.LogCaptureFixture) -> None:
    needs_triton(ECHO)
    server = TritonServer(ServerConfig(new_name(), ECHO, dict(os.environ), 1 << 20))
    with caplog.at_level("INFO", "wavserve"):
        await server.start()
    try:
        [url] = re.findall(r"http://127\.0\.0\.1:\d+/metrics", caplog.text)
        async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
            assert "# HELP" in await first_answer(client, url)
    finally:
        await server.stop()


async def first_answer(client: httpx.AsyncClient, url: str) -> str:
    """A Triton serves its metrics a moment after its gRPC."""
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(httpx.ConnectError):
                return (await client.get(url)).text
            await asyncio.sleep(0.05)


async def test_a_port_that_another_server_took_is_left_to_it() -> None:
    """Its answers are not our server's, which exits and starts at another port."""
    needs_triton(ECHO)
    other = TritonServer(ServerConfig(new_name(), ECHO, dict(os.environ), 1 << 20))
    taken = int((await other.start()).rpartition(":")[2])
    attempts: list[bool] = []

    def find_ports(num_taken: int, count: int) -> list[int]:
        http, grpc, metrics = free_ports(count)
        attempts.append(len(attempts) < num_taken)
        return [http, taken if attempts[-1] else grpc, metrics]

    server, always = (
        TritonServer(ServerConfig(new_name(), ECHO, dict(os.environ), 1 << 20), partial(find_ports, num_taken))
        for num_taken in (1, 100)
    )
    try:
        url = await server.start()
        assert attempts == [True, False]
        assert not url.endswith(f":{taken}")
        assert server.running
        with pytest.raises(SettingsError, match=f"exited with code 1: .*{taken}.* already in use"):
            await always.start()
    finally:
        for each in (other, server, always):
            await each.stop()


async def test_a_model_process_that_dies_at_its_start_is_noticed(tmp_path: Path) -> None:
    """Triton itself waits for it without an end."""
    needs_triton(ECHO)
    (tmp_path / "profile").write_text("echo no such library >&2; exit 7")  # ends the shell that starts the stub
    name = new_name()
    server = TritonServer(ServerConfig(name, ECHO, {**os.environ, "BASH_ENV": str(tmp_path / "profile")}, 1 << 20))
    client = InferenceServerClient(await server.start())
    loading = asyncio.ensure_future(client.load_model("echo"))
    try:
        async with asyncio.timeout(60):
            assert re.search(r"ended with exit code 7: .*no such library", await server.child_death())
    finally:
        loading.cancel()
        await asyncio.wait([loading])
        await client.close()
        await server.stop()
    assert [path for path in os.listdir("/dev/shm") if path.startswith(name)] == []


async def test_every_dtype_crosses_the_stub_unharmed() -> None:
    """With numpy 2 the stub's own numpy bridge gives wrong numbers without a warning, so it must not be used."""
    needs_triton(ECHO)
    rng = np.random.default_rng(5)
    sent = {
        "float32": rng.standard_normal((300, 7), dtype=np.float32),
        "int32": rng.integers(-(2**31), 2**31, (5, 3), np.int32),
        "int64": rng.integers(-(2**62), 2**62, (1, 4), np.int64),
        "uint8": np.arange(256, dtype=np.uint8).reshape(16, 16),
    }
    sums = {"float32": sent["float32"].sum(), "uint8": 255 * 128}
    back = await echoed(ECHO, sent)
    for name, array in sent.items():
        np.testing.assert_array_equal(back[name], array, err_msg=name)
        assert back[name].dtype == array.dtype
    seen = dict(zip(sorted(sent), back["seen"].tolist(), strict=True))
    for name, total in sums.items():
        assert seen[name] == pytest.approx(total, rel=1e-5)


def needs_triton(repository: Path) -> None:
    if (obstacle := find_obstacle(repository)) is not None:
        pytest.skip(f"no real Triton on this machine: {obstacle}")


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
