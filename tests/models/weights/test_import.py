"""Importing the authors' files: what the options declare for motion, and the golden plan of an imported policy."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from wavserve.bundle import bundle
from wavserve.bundle.bundle import Bundle
from wavserve.cli import main
from wavserve.core.spec import LimitsSpec

CAMERAS = ["top", "left_wrist", "right_wrist"]
LIMITS = {"position": [[-9.0, 9.0], *[None] * 13], "velocity": [3.0] * 14, "min_horizon": 7}


def example_config() -> dict[str, Any]:
    """The authors' configuration of a model of the sizes of `tiny-piper`."""
    experts = {"attention_head_dim": 16, "num_attention_heads": 3}
    diffusion = {
        **{"num_layers": 4, "num_attention_heads": 6, "attention_head_dim": 16, "in_channels": 16, "out_channels": 16},
        **{"caption_channels": 64, "cross_attention_dim": 96, "qk_norm": "rms_norm_across_heads"},
        **{"action_expert": True, "value_expert": True, "action_in_channels": 28, "value_in_channels": 17},
        **{f"{expert}_{key}": size for expert in ("action", "value") for key, size in experts.items()},
    }
    train = {
        **{"valid_cam": CAMERAS, "sample_size": [128, 128], "chunk": 9, "action_chunk": 54, "n_previous": 4},
        **{"action_type": "delta", "action_space": "joint", "value_dense": True, "domains": ["arms"]},
    }
    flags = {"pixel_wise_timestep": True, "add_state": True, "exploration": False, "num_inference_step": 10}
    return {**flags, "data": {"train": train}, "diffusion_model": {"config": diffusion}}


@dataclass(frozen=True)
class Import:
    """The arguments of `wavserve bundle import`, without the options under test."""

    arguments: list[str]
    out: Path

    def run(self, *options: str) -> int:
        return main(["bundle", "import", *self.arguments, f"--out={self.out}", *options])


@pytest.fixture
def importing(tiny_piper: Bundle, tmp_path: Path) -> Import:
    config, stats = tmp_path / "config.yaml", tmp_path / "stats.json"
    config.write_text(yaml.safe_dump(example_config()))
    state, action = tiny_piper.spec.state, tiny_piper.spec.action.vector
    numbers = {"arms_state_joint": state.norm, "arms_delta_joint": action.norm}
    stats.write_text(json.dumps({key: {"mean": norm.low, "std": norm.high} for key, norm in numbers.items()}))
    facts = {"name": "imported", "norm": "meanstd", "control-hz": "30", "state-units": ",".join(state.units)}
    facts |= {"checkpoint": str(tiny_piper.folder / bundle.TRANSFORMER), "assets": str(tiny_piper.folder)}
    facts |= {"config": str(config), "stats": str(stats), "action-units": ",".join(action.units)}
    return Import([f"--{name}={value}" for name, value in facts.items()], tmp_path / "imported")


def test_an_import_declares_what_its_options_say(importing: Import, tmp_path: Path) -> None:
    limits = tmp_path / "limits.json"
    limits.write_text(json.dumps(LIMITS))
    options = ["--embodiment=piper_dual", "--rotated-cameras=top,left_wrist", f"--limits={limits}"]
    assert importing.run(*options) == 0
    opened = bundle.load(importing.out)
    assert opened.spec.embodiment == "piper_dual"
    orientations = [camera.orientation for camera in opened.spec.cameras]
    assert orientations == ["rotated_180", "rotated_180", "as_captured"]
    assert opened.spec.action.limits == LimitsSpec(((-9.0, 9.0), *(None,) * 13), (3.0,) * 14, (), 7)
    assert opened.golden is not None


def test_an_import_without_options_declares_nothing(importing: Import) -> None:
    assert importing.run("--no-golden") == 0
    opened = bundle.load(importing.out)
    assert (opened.spec.embodiment, opened.spec.action.limits, opened.golden) == ("", LimitsSpec(), None)
    assert json.loads((importing.out / bundle.POLICY).read_text())["format"] == 2


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (lambda folder: "--rotated-cameras=front", "--rotated-cameras: expected names of top, left_wrist"),
        (lambda folder: f"--limits={folder / 'none.json'}", "none.json: expected a JSON file"),
    ],
)
def test_a_wrong_option_is_refused(
    option: Callable[[Path], str],
    words: str,
    importing: Import,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert importing.run(option(tmp_path)) == 1
    assert words in capsys.readouterr().err
    assert not importing.out.exists()
