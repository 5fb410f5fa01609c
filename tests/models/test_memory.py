"""What a process with models says of its memory."""

from __future__ import annotations

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.edge.fakes import example_spec
from wavserve.models import memory
from wavserve.models.runners.loading import arena_for
from wavserve.system.memory import MEMORY


def test_tensors_that_share_memory_count_once() -> None:
    before = memory.tensor_bytes()
    weights = torch.nn.Parameter(torch.zeros(1000, 1000))
    views = [weights[:10], weights.detach().view(-1)]
    assert memory.tensor_bytes() - before == 4_000_000
    assert len(views) == 2


def test_weights_are_counted_without_the_arena_and_a_cpu_claims_no_gpu_memory() -> None:
    before = memory.tensor_bytes()
    arena = arena_for(example_spec(), num_slots=4)
    readings = memory.readings(torch.device("cpu"), arena)
    assert set(readings) == {"model_resident_bytes", "model_weights_bytes", "model_arena_bytes"}
    assert set(readings) <= MEMORY.keys()
    assert readings["model_arena_bytes"]() == 4 * 4 * arena.shape.elements
    assert readings["model_weights_bytes"]() == before
    assert 1e7 < readings["model_resident_bytes"]() < 1e12


def test_a_process_without_an_arena_of_its_own_shows_none() -> None:
    assert "model_arena_bytes" not in memory.readings(torch.device("cpu"), None)


def test_tensors_that_a_compiler_left_are_no_memory() -> None:
    before = memory.tensor_bytes()
    with FakeTensorMode():
        fake = torch.zeros(1000, 1000)
    assert fake.device.type == "cpu"
    assert memory.tensor_bytes() - before < 1_000_000


def test_a_tensor_in_a_layout_without_a_storage_stops_nothing() -> None:
    kept = [torch.eye(4).to_sparse(), torch.ones(4).to_mkldnn()]
    assert memory.tensor_bytes() >= 0
    assert kept
