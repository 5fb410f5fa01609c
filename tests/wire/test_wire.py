"""The protobuf encoding: round trips, one set of option names, fresh generated code, a status for every error."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.edge.fakes import (
    RecordingPolicy,
    example_chunk_of,
    example_image,
    example_limits,
    example_observation,
    example_spec,
)
from wavserve.core import errors
from wavserve.core.errors import BundleError, InvalidRequest, Overloaded, StaleHandle, UnsupportedMedia, WavserveError
from wavserve.core.messages import ActionChunk, Observation, PolicyInfo
from wavserve.core.spec import PlannerBounds, PlannerConfig
from wavserve.core.types import DeadlineResult, PlanRequest, Stop
from wavserve.edge.frontend import Frontend
from wavserve.edge.report import report
from wavserve.edge.status import INTERNAL, STATUSES, name_of, status_of
from wavserve.pb import wavserve_pb2 as pb
from wavserve.wire import answers, requests
from wavserve.wire.errors import pack_details, unpack_error

ROOT = Path(__file__).parents[2]

counts = st.integers(0, 2**64 - 1)
options = st.fixed_dictionaries(
    {},
    optional={
        "mode": st.sampled_from(["paper", "published", "off", "mean", "random_scores"]),
        "num_iterations": st.integers(0, 2**32 - 1),
        "smoothing": st.floats(allow_nan=False),
        "per_view_noise": st.booleans(),
        "warm_start": st.booleans(),
        "early_stop": st.floats(allow_nan=False),
        "fixed_shapes": st.booleans(),
    },
)
MAX_FLOAT32 = float(np.finfo(np.float32).max)
float32s = st.floats(-MAX_FLOAT32, MAX_FLOAT32, width=32) | st.sampled_from([float("inf"), float("-inf")])
observations = st.builds(
    Observation,
    images=st.just((example_image("agentview", "png"), example_image("wrist", "raw_bgr8"))),
    state=st.lists(float32s, max_size=9).map(tuple),
    instruction=st.text(max_size=20),
    session_id=st.none() | st.text(min_size=1, max_size=9),
    sequence=counts,
    control_step=counts,
    executed_steps=st.integers(0, 2**32 - 1),
    policy=st.none() | st.text(min_size=1, max_size=9),
    options=options,
    seed=st.none() | counts,
    deadline_ms=st.none() | st.integers(0, 2**32 - 1),
    imagine_chunks=st.integers(0, 2**32 - 1),
)


@given(observation=observations)
def test_an_observation_survives_the_wire(observation: Observation) -> None:
    assert requests.parse_plan_request(requests.plan_request(observation).SerializeToString()) == observation


def example_chunk(**changes: object) -> ActionChunk:
    request = PlanRequest(
        images={}, state=np.zeros(8, np.float32), instruction="go", session_id="s", sequence=3, control_step=9
    )
    chunk = example_chunk_of(example_spec(), request)
    image = example_image()
    chunk = replace(
        chunk,
        imagined={"agentview": (image, image)},
        captured_mono_ns=5,
        server_recv_ns=6,
        server_send_ns=7,
        warnings=("w",),
    )
    return replace(chunk, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("stopped", list(Stop))
@pytest.mark.parametrize("deadline", list(DeadlineResult))
@pytest.mark.parametrize("absent", [False, True])
def test_a_chunk_survives_the_wire(deadline: DeadlineResult, absent: bool, stopped: Stop) -> None:
    receipt = replace(example_chunk().receipt, deadline=deadline, stopped=stopped, warm_start=absent)
    sent = example_chunk(receipt=receipt)
    if absent:
        receipt = replace(receipt, slack_s=None, value_estimate=None, expected_return=None, seam_jump=None)
        sent = replace(sent, receipt=receipt, cut=None, fresh_memory=False)
    got = answers.chunk_from(pb.ActionChunk.FromString(answers.action_chunk(sent).SerializeToString()))
    assert got.actions.tobytes() == sent.actions.tobytes()
    assert got.actions.shape == sent.actions.shape
    for one, other in zip(got.receipt.iterations, sent.receipt.iterations, strict=True):
        assert one.snr.tobytes() == other.snr.tobytes()
        assert one.snr.shape == other.snr.shape
    np.testing.assert_equal(asdict(got), asdict(sent))


def test_policy_facts_survive_the_wire() -> None:
    info: PolicyInfo = Frontend(RecordingPolicy(), example_limits()).info()
    assert answers.policy_from(pb.PolicyInfo.FromString(answers.policy_message(info).SerializeToString())) == info


def test_options_have_one_set_of_names() -> None:
    assert [f.name for f in pb.PlannerOptions.DESCRIPTOR.fields] == [f.name for f in fields(PlannerConfig)]
    assert all(f.default is not None for f in fields(PlannerBounds))


@pytest.mark.parametrize(
    ("changes", "field", "expected", "actual"),
    [
        ({"options": {"temperature": 1}}, "planner.temperature", "one of mode", "an unknown option"),
        ({"options": {"num_iterations": "2"}}, "planner.num_iterations", "an integer from 0 to 4294967295", "'2'"),
        ({"options": {"num_iterations": -1}}, "planner.num_iterations", "an integer from 0 to 4294967295", "-1"),
        ({"options": {"smoothing": "x"}}, "planner.smoothing", "a number", "'x'"),
        ({"options": {"mode": 1}}, "planner.mode", "text", "1"),
        ({"sequence": -1}, "sequence", f"an integer from 0 to {2**64 - 1}", "-1"),
        ({"seed": 2**64}, "seed", f"an integer from 0 to {2**64 - 1}", str(2**64)),
        ({"control_step": 1.5}, "control_step", "an integer", "1.5"),
        ({"executed_steps": 2**32}, "executed_steps", "an integer from 0 to 4294967295", str(2**32)),
        ({"instruction": 3}, "instruction", "text", "3"),
        ({"instruction": "\ud800"}, "instruction", "text", "'\\ud800'"),
        ({"deadline_ms": -1}, "deadline_ms", "an integer from 0", "-1"),
        ({"deadline_ms": 2**32}, "deadline_ms", "an integer from 0", str(2**32)),
        ({"deadline_ms": "5"}, "deadline_ms", "an integer", "'5'"),
        ({"state": (0.5, "1")}, "state[1]", "a number", "'1'"),
        ({"images": (replace(example_image(), encoding="webp"),)}, "images.agentview.encoding", "one of", "webp"),
        ({"images": (replace(example_image(), height=-1),)}, "images.agentview.height", "an integer from 0", "-1"),
        ({"images": (replace(example_image(), data="text"),)}, "images.agentview.data", "bytes", "'text'"),
        (
            {"images": (replace(example_image(), captured_mono_ns=2**63),)},
            "images.agentview.captured_mono_ns",
            "an integer",
            str(2**63),
        ),
    ],
)
def test_values_that_protobuf_cannot_carry_are_refused_before_sending(
    changes: dict[str, object], field: str, expected: str, actual: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        requests.plan_request(example_observation(**changes))
    assert caught.value.field == field
    assert caught.value.expected.startswith(expected)
    assert caught.value.actual == actual
    assert isinstance(caught.value, UnsupportedMedia) == field.endswith("encoding")


def test_the_generated_code_is_fresh(tmp_path: Path) -> None:
    out = [f"--{kind}_out={tmp_path}" for kind in ("python", "grpc_python", "pyi")]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-Iwavserve/pb=protos/wavserve/v1", *out]
    subprocess.run([*command, "wavserve/pb/wavserve.proto"], cwd=ROOT, check=True)
    generated = sorted((tmp_path / "wavserve" / "pb").iterdir())
    assert [path.name for path in generated] == ["wavserve_pb2.py", "wavserve_pb2.pyi", "wavserve_pb2_grpc.py"]
    for path in generated:
        assert path.read_text() == (ROOT / "service" / "wavserve" / "pb" / path.name).read_text(), path.name


def family(cls: type[WavserveError]) -> Iterator[type[WavserveError]]:
    yield cls
    for child in cls.__subclasses__():
        yield from family(child)


def example_error(cls: type[WavserveError]) -> WavserveError:
    return cls("f", "e", "a") if issubclass(cls, InvalidRequest) else cls("m")


NOT_OF_A_REQUEST = {
    *(WavserveError, BundleError, errors.SettingsError, errors.InvalidAnswer),
    *family(errors.SimulationError),
}


@pytest.mark.parametrize("cls", sorted(set(family(WavserveError)), key=str))
def test_every_error_of_a_request_has_a_status(cls: type[WavserveError]) -> None:
    status = status_of(example_error(cls))
    assert (status is INTERNAL) == (cls in NOT_OF_A_REQUEST)
    assert (400 <= status.http < 600, status.grpc is not grpc.StatusCode.OK) == (True, True)


def test_a_child_has_its_parents_status_and_its_own_name() -> None:
    assert status_of(StaleHandle("gone")) is STATUSES[errors.BackendError]
    assert name_of(StaleHandle("gone")) == "stale-handle"
    assert (status_of(KeyError()), name_of(KeyError())) == (INTERNAL, "internal")


@pytest.mark.parametrize("cls", sorted(set(family(WavserveError)) - NOT_OF_A_REQUEST, key=str))
def test_a_typed_error_survives_the_wire(cls: type[WavserveError]) -> None:
    error = example_error(cls)
    problem = report(error, "test")
    facts = {name: getattr(problem, name) for name in ("field", "expected", "actual", "retry_after_s")}
    texts = {name: str(value) for name, value in facts.items() if value is not None}
    got = unpack_error(pack_details(3, problem.detail, problem.name, texts))
    assert type(got) is cls
    assert vars(got) == vars(error)


def test_retry_after_survives_the_wire() -> None:
    got = unpack_error(pack_details(8, "full", "overloaded", {"retry_after_s": "2.5"}))
    assert isinstance(got, Overloaded)
    assert got.retry_after_s == 2.5


@pytest.mark.parametrize("details", [b"", b"\xff\xff"])
def test_details_from_another_source_are_ignored(details: bytes) -> None:
    assert unpack_error(details) is None
