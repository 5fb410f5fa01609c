"""The devices and types that the settings name, checked against this machine."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from wavserve.bundle.bundle import Bundle
from wavserve.core.errors import BundleError, SettingsError
from wavserve.models.runners import precision
from wavserve.models.runners.loading import RunnerConfig, arena_for, load_runner, resolve_dtype

CONFIG = RunnerConfig("cpu", "float32", None, 1, 60.0, 1, text_device="cuda")


def test_the_text_encoder_has_a_device_of_its_own(tiny: Bundle) -> None:
    """A device that does not exist is refused, with the name of the setting."""
    if torch.cuda.is_available():
        load_runner("encoder", tiny, arena_for(tiny.spec, 1), CONFIG)
    else:
        with pytest.raises(SettingsError, match=r"backend.text_device: expected a CUDA device"):
            load_runner("encoder", tiny, arena_for(tiny.spec, 1), CONFIG)


def test_auto_chooses_a_type_by_a_measurement(tiny: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    threads = torch.get_num_threads()
    with caplog.at_level("INFO"):
        chosen = resolve_dtype("auto", tiny.spec, "cpu")
    logged = re.search(r"auto: (\w+), because bfloat16 is ([0-9.]+) times", caplog.text)
    assert logged
    assert chosen == logged[1] == ("bfloat16" if float(logged[2]) >= precision.MIN_SPEEDUP else "float32")
    assert torch.get_num_threads() == threads
    assert resolve_dtype("bfloat16", tiny.spec, "cpu") == "bfloat16"


def test_bfloat16_is_chosen_where_it_is_much_faster() -> None:
    assert precision.better(3.0, 2.0) == ("bfloat16", 1.5)
    assert precision.better(2.9, 2.0) == ("float32", 1.45)
    assert precision.better(1.0, 2.0) == ("float32", 0.5)


def test_models_in_separate_processes_may_not_choose_a_type(tiny: Bundle) -> None:
    with pytest.raises(SettingsError, match=r"backend.dtype: .* needs float32 or bfloat16, got auto"):
        load_runner("value_dit", tiny, arena_for(tiny.spec, 1), replace(CONFIG, dtype="auto"))


def test_a_model_that_does_not_exist_is_refused(tiny: Bundle) -> None:
    with pytest.raises(BundleError, match="expected one of encoder, video_dit, value_dit, action_dit, got 'audio_dit'"):
        load_runner("audio_dit", tiny, arena_for(tiny.spec, 1), CONFIG)


def test_cuda_graphs_need_a_gpu(tiny: Bundle) -> None:
    with pytest.raises(SettingsError, match=r"backend.cuda_graphs: on expects models on cuda, got cpu"):
        load_runner("value_dit", tiny, arena_for(tiny.spec, 1), replace(CONFIG, cuda_graphs="on"))
