"""What only the Triton backend has: numbers through the stub, configurations, tensor keys, deadlines, typed errors."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import InferInput, model_config_pb2
from tritonclient.grpc.aio import InferenceServerClient

from tests.backends.calls import denoise_inputs, example_inputs, value_inputs
from tests.backends.rig import REPOSITORY, TIMEOUT_S, RunningTriton, Subject
from wavserve.backends.triton.client import TritonBackend
from wavserve.backends.triton.server import ServerConfig, TritonServer, find_obstacle, new_name, remove_orphans
from wavserve.bundle.bundle import Bundle
from wavserve.core import remote_errors
from wavserve.core.errors import (
    BackendError,
    DeadlineExceeded,
    InvalidRequest,
    ModelDown,
    SettingsError,
    TensorMiss,
    WavserveError,
)
from wavserve.core.tensor_cache import KEY_BYTES, Receiver, Sender, key_name
from wavserve.core.verbs import ABOUT, MODELS, VERBS, Status

DTYPES = {"float32": "TYPE_FP32", "uint8": "TYPE_UINT8", "int32": "TYPE_INT32", "int64": "TYPE_INT64"}


@pytest.fixture
async def triton(running_triton: RunningTriton) -> AsyncIterator[Subject]:
    """The running Triton with free slots, see `RunningTriton.subject`."""
    async with running_triton.subject() as subject:
        yield subject


def dims(shape: str) -> list[int]:
    """A shape of the signature table as Triton declares it, with the group axis first."""
    return [-1, *(int(letter) if letter.isdigit() else -1 for letter in shape.split())]


@pytest.mark.parametrize("model", MODELS)
def test_a_models_configuration_is_the_signature_table(model: str) -> None:
    config = text_format.Parse((REPOSITORY / model / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    verbs = [verb for verb in VERBS.values() if verb.model == model]
    inputs = {name: spec for verb in verbs for name, spec in {**verb.inputs, **verb.optional}.items()}
    inputs |= {key_name(name): ("uint8", str(KEY_BYTES)) for verb in verbs for name in verb.cached}
    inputs |= {name: ("int32", "1") for verb in verbs for name in verb.params}
    outputs = {name: spec for verb in verbs for name, spec in verb.outputs.items()} | {ABOUT: ("uint8", "")}
    for declared, expected in ((config.input, inputs), (config.output, outputs)):
        actual = {each.name: (model_config_pb2.DataType.Name(each.data_type), list(each.dims)) for each in declared}
        assert actual == {name: (DTYPES[dtype], dims(shape)) for name, (dtype, shape) in expected.items()}
    assert (config.name, config.backend, config.max_batch_size) == (model, "python", 0)
    assert all(each.optional for each in config.input)
    [group] = config.instance_group
    assert (group.count, group.kind) == (1, model_config_pb2.ModelInstanceGroup.KIND_AUTO)
    assert not config.HasField("dynamic_batching"), "the gateway batches; a second batcher would hold a second queue"


def test_the_model_files_are_the_same_line() -> None:
    files = {(REPOSITORY / model / "1" / "model.py").read_text() for model in MODELS}
    assert files == {"from wavserve.app.triton_entry import TritonPythonModel as TritonPythonModel\n"}
    assert {path.name for path in REPOSITORY.iterdir() if path.is_dir()} == set(MODELS)


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


async def test_tensors_that_a_plan_shares_travel_once(triton: Subject, running_triton: RunningTriton) -> None:
    traffic: Counter[str] = Counter()

    def count(verb: str, sent: Mapping[str, int], received: Mapping[str, int]) -> None:
        traffic.update(sent)

    inputs = example_inputs(triton.spec, "imagine", 2)
    backend = TritonBackend(running_triton.url, on_traffic=count)
    async with asyncio.timeout(TIMEOUT_S):
        for _ in range(3):
            handles = (await backend.run("imagine", inputs))["handles"]
            await backend.run("release", {"handles": handles})
    await backend.close()
    assert traffic["memory"] == inputs["memory"].nbytes
    assert traffic["mean"] == inputs["mean"].nbytes
    assert traffic["memory_key"] == 3 * 2 * KEY_BYTES


async def test_a_reloaded_model_gets_the_shared_tensors_again(triton: Subject, running_triton: RunningTriton) -> None:
    """A reloaded model knows no keys. The call that finds that out is answered nevertheless."""
    backend = running_triton.backend
    inputs = example_inputs(triton.spec, "denoise")
    before = (await triton.run("denoise", inputs))["latents"]
    await backend.unload("video_dit", TIMEOUT_S)
    await backend.load("video_dit", TIMEOUT_S)
    np.testing.assert_array_equal((await triton.run("denoise", inputs))["latents"], before)


async def test_handles_of_an_earlier_slab_are_stale(triton: Subject, running_triton: RunningTriton) -> None:
    """After a reload of the arena's owner, readers find the new slab by its handles, and refuse old handles."""
    backend = running_triton.backend
    old = await triton.imagine(samples=2)
    await backend.unload("video_dit", TIMEOUT_S)
    await backend.load("video_dit", TIMEOUT_S)
    new = await triton.imagine(samples=2)
    for handles, status in ((old, Status.STALE_HANDLE), (new, Status.OK), (old, Status.STALE_HANDLE)):
        outputs = await triton.run("score", value_inputs(triton.spec, handles, flow_steps=1, release=0))
        assert outputs["status"].tolist() == [status]
    both = await triton.run("score", value_inputs(triton.spec, np.concatenate([old, new]), flow_steps=1, release=1))
    assert both["status"].tolist() == [Status.STALE_HANDLE, Status.OK]
    assert await triton.used() == 0


async def test_a_call_ends_at_its_deadline(triton: Subject) -> None:
    handles = await triton.imagine()
    endless = value_inputs(triton.spec, handles, 16, flow_steps=3000, release=1)
    for deadline in (time.monotonic() + 0.3, time.monotonic() - 1):
        with pytest.raises(DeadlineExceeded):
            await triton.run("score", endless, deadline)
    assert await triton.used() == 2  # the call stopped before it released them


async def test_a_missing_server_is_reported_as_a_model_down(tiny: Bundle) -> None:
    down: list[str] = []
    backend = TritonBackend("127.0.0.1:1", on_down=down.append)
    with pytest.raises(ModelDown):
        await backend.run("denoise", denoise_inputs(tiny.spec))
    await backend.close()
    assert down == ["video_dit"]


async def test_wrong_shapes_fail_only_their_own_call(triton: Subject) -> None:
    good = example_inputs(triton.spec, "denoise")
    for wrong in ({"memory": good["memory"][..., :1]}, {"text_key": good["text_key"][:, :5]}):
        with pytest.raises(BackendError):
            await triton.run("denoise", {**good, **wrong})
    assert (await triton.run("denoise", good))["status"].tolist() == [Status.OK]


def test_keys_replace_rows_and_an_unknown_key_is_refused() -> None:
    sender, receiver = Sender(num_sent=4), Receiver(num_held=4)
    rows = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.arange(2)}
    first, again = (sender.fold(rows, ("a",)) for _ in range(2))
    assert ("a" in first, "a" in again, "b" in again) == (True, False, True)
    np.testing.assert_array_equal(receiver.unfold(first, ("a",))["a"], rows["a"])
    whole = receiver.unfold(again, ("a",))
    np.testing.assert_array_equal(whole["a"], rows["a"])
    assert set(whole) == {"a", "b"}
    mixed = {"a": np.stack([rows["a"][1], rows["a"][1] + 9])}
    np.testing.assert_array_equal(receiver.unfold(sender.fold(mixed, ("a",)), ("a",))["a"], mixed["a"])
    with pytest.raises(TensorMiss, match="2 of 2"):
        Receiver().unfold(again, ("a",))
    sender.forget()
    assert "a" in sender.fold(rows, ("a",))


def test_equal_bytes_with_another_shape_have_another_key() -> None:
    sender = Sender()
    flat = sender.fold({"a": np.zeros((1, 4), np.float32)}, ("a",))
    square = sender.fold({"a": np.zeros((1, 2, 2), np.float32)}, ("a",))
    assert flat["a_key"].tobytes() != square["a_key"].tobytes()


@pytest.mark.parametrize(
    "error", [BackendError('a "quoted" {brace}'), InvalidRequest("images.top", "480x640", "1x1"), SettingsError("ä")]
)
def test_an_error_survives_a_wire_that_carries_only_text(error: WavserveError) -> None:
    back = remote_errors.decode(
        f"failed to load 'x': TritonModelException: {remote_errors.encode(error)}\n\nAt:\n  model.py(1): f\n"
    )
    assert type(back) is type(error)
    assert vars(back) == vars(error)


@pytest.mark.parametrize("text", ["", "no fault", "wavserve-fault:", "wavserve-fault:{}", "wavserve-fault:[1]"])
def test_other_text_is_not_taken_for_one_of_our_errors(text: str) -> None:
    assert remote_errors.decode(text) is None


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
