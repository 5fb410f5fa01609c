"""Threads of a call and calls at a time: the given numbers, or numbers by the model's size."""

from __future__ import annotations

import pytest
import torch

from wavserve.core.errors import SettingsError
from wavserve.core.spec import PolicySpec
from wavserve.models.runners.threads import Threads, plan_threads
from wavserve.models.weights import presets

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(scope="module")
def small() -> PolicySpec:
    return presets.find("tiny").spec


@pytest.fixture(scope="module")
def large() -> PolicySpec:
    return presets.find("libero").spec


def test_a_small_model_computes_one_call_on_each_core(small: PolicySpec) -> None:
    assert plan_threads(small, CPU, None, None) == Threads(1, torch.get_num_threads())


def test_a_large_model_computes_one_call_on_all_cores(large: PolicySpec) -> None:
    assert plan_threads(large, CPU, None, None) == Threads(None, 1)
    assert plan_threads(large, CPU, 1, None) == Threads(1, 1)


def test_given_numbers_are_kept(small: PolicySpec, large: PolicySpec) -> None:
    assert plan_threads(small, CPU, 2, 3) == Threads(2, 3)
    assert plan_threads(small, CPU, None, 1) == Threads(1, 1)
    assert plan_threads(large, CPU, None, 2) == Threads(None, 2)


def test_a_gpu_computes_one_call_at_a_time(small: PolicySpec) -> None:
    assert plan_threads(small, GPU, None, None) == Threads(None, 1)
    with pytest.raises(SettingsError, match=r"backend.workers: expected 1 on cuda, got 2"):
        plan_threads(small, GPU, None, 2)
