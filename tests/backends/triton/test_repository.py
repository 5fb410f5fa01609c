"""The model repository against the signature table."""

from __future__ import annotations

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from tests.backends.rig import REPOSITORY
from wavserve.core.tensor_cache import KEY_BYTES, key_name
from wavserve.core.verbs import ABOUT, MODELS, VERBS

DTYPES = {"float32": "TYPE_FP32", "uint8": "TYPE_UINT8", "int32": "TYPE_INT32", "int64": "TYPE_INT64"}


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


def dims(shape: str) -> list[int]:
    """A shape of the signature table as Triton declares it, with the group axis first."""
    return [-1, *(int(letter) if letter.isdigit() else -1 for letter in shape.split())]
