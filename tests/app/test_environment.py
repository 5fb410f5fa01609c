"""What the libraries of a process of ours do not take from its environment, each in a real process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wavserve.app import environment

ROOT = Path(__file__).parents[2]
START = "import sys\nfrom wavserve.cli import main\nassert main(['config', 'show', '--json']) == 0\n"
POINTS = {"pydantic": "plugin", "torch.backends": "start", "opentelemetry_tracer_provider": "Provider"}
EAGER = """
import pathlib
pathlib.Path(__file__).with_name("imported").touch()

class Provider:
    def new_schema_validator(self, *_):
        return None, None, None

plugin = Provider()

def start(): ...
"""
ANSWER = """
from fastapi.testclient import TestClient
from tests.edge.fakes import RecordingPolicy, example_limits
from wavserve.edge.http.api import create_http_app
from wavserve.system.telemetry import Metrics
app = create_http_app(RecordingPolicy(), example_limits(), Metrics())
print(TestClient(app).get("/healthz").status_code)
"""
SERVE = """
import asyncio
from wavserve.app.serve import serve
from wavserve.app.settings import Settings
from wavserve.core.errors import SettingsError
try:
    asyncio.run(serve(Settings()))
except SettingsError as error:
    print(error.message)
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """A folder with an installed distribution that offers itself to every library, and notes when it is imported."""
    facts = tmp_path / "eager-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: eager\nVersion: 1.0\n")
    points = "".join(f"[{group}]\neager = eager:{name}\n\n" for group, name in POINTS.items())
    (facts / "entry_points.txt").write_text(points)
    (tmp_path / "eager.py").write_text(EAGER)
    return tmp_path


def run_child(program: str, **variables: str) -> str:
    """Runs a program in a process with more variables, and returns the last line of its output."""
    path = os.pathsep.join([variables.pop("PYTHONPATH", ""), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    unset = {name: value for name, value in os.environ.items() if name not in environment.LIBRARIES}
    child = subprocess.run(
        [sys.executable, "-c", program],
        env={**unset, **variables, "PYTHONPATH": path},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    return child.stdout.splitlines()[-1]


@pytest.mark.parametrize("then", ["print(0)", "import torch; print(0)"], ids=["pydantic", "torch"])
def test_an_installed_plugin_of_a_library_never_runs(plugin: Path, then: str) -> None:
    run_child(START + then, PYTHONPATH=str(plugin))
    assert not (plugin / "imported").exists()


def test_nothing_that_is_installed_traces_requests(plugin: Path) -> None:
    answered = run_child(START + ANSWER, PYTHONPATH=str(plugin), OTEL_PYTHON_TRACER_PROVIDER="eager")
    assert answered == "200"
    assert not (plugin / "imported").exists()


@pytest.mark.parametrize("program", ["import pydantic\nclass A(pydantic.BaseModel): ...", "import torch"])
def test_without_our_start_the_plugin_runs(plugin: Path, program: str) -> None:
    run_child(f"{program}\nprint(0)", PYTHONPATH=str(plugin))
    assert (plugin / "imported").exists()


@pytest.mark.parametrize(
    ("variables", "then", "expected"),
    [
        (
            {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"},
            "from google.protobuf.internal import api_implementation as a; print(a.Type())",
            "upb",
        ),
        (
            {"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"},
            "import torch; print(torch.get_float32_matmul_precision())",
            "highest",
        ),
        (
            {"DIFFUSERS_ATTN_BACKEND": "_native_npu", "USE_TF": "1"},
            "from diffusers import AutoencoderKLLTXVideo as vae; print(vae.__module__.partition('.models')[1])",
            ".models",
        ),
        (
            {"HF_HUB_OFFLINE": "0"},
            "from huggingface_hub.constants import HF_HUB_OFFLINE as offline; print(offline)",
            "True",
        ),
    ],
    ids=["protobuf", "tf32", "diffusers", "downloads"],
)
def test_a_variable_that_changes_answers_has_no_effect(variables: dict[str, str], then: str, expected: str) -> None:
    assert run_child(START + then, **variables) == expected


@pytest.mark.parametrize("name", ["PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"])
def test_metrics_stay_in_the_process(name: str, tmp_path: Path) -> None:
    metrics = "from wavserve.system.telemetry import Metrics\nprint(len(list(Metrics().registry.collect())) > 0)"
    assert run_child(START + metrics, **{name: str(tmp_path)}) == "True"
    assert list(tmp_path.iterdir()) == []


def test_every_other_variable_is_left_alone() -> None:
    variables = {"OMP_NUM_THREADS": "3", "HF_HUB_OFFLINE": "0", "PROMETHEUS_MULTIPROC_DIR": "/tmp/other"}
    environment.pin(variables)
    assert variables.pop("OMP_NUM_THREADS") == "3"
    assert variables == {name: value for name, value in environment.LIBRARIES.items() if value is not None}


@pytest.mark.parametrize(
    ("cause", "variables"),
    [("", {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"}), ("import sys; sys.modules['google._upb'] = None", {})],
    ids=["asked for", "not installed"],
)
def test_a_slow_protobuf_is_refused(cause: str, variables: dict[str, str]) -> None:
    """Where the start did not pin the variables, and where the compiled implementation is missing."""
    refusal = run_child(cause + SERVE, **variables)
    assert refusal.startswith("protobuf: expected its compiled implementation, upb, got python")
    assert "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION" in refusal
