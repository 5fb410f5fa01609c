"""The container files pass their linters and agree with each other, the package and the settings.

Nothing is built or run, so no container engine is needed. These tests do not show that an image can be built.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import sysconfig
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from wavserve.app.settings import Settings
from wavserve.app.settings_sources import Given, load_settings
from wavserve.app.triton_fleet import MODELS_AT_ONCE_ON_CPU
from wavserve.cli import build_parser
from wavserve.system.processes import COMPUTE_ENVIRONMENT

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("wavserve-")}
"""The services that run our images. tests/deploy has the tests of the others."""
TORCH_STACK = {"torch", "diffusers", "transformers", "accelerate"}


class Stage(NamedTuple):
    image: str
    steps: list[tuple[str, str]]
    """(instruction, its text)"""

    def last(self, instruction: str) -> str:
        return [text for word, text in self.steps if word == instruction][-1]

    def command(self) -> list[str]:
        return list(yaml.safe_load(self.last("CMD")))


def read_stages() -> dict[str, Stage]:
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    stages: dict[str, Stage] = {}
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            image, _, name = rest.partition(" AS ")
            stages[name] = Stage(image, [])
        elif word:
            stages[name].steps.append((word, rest.strip()))
    return stages


STAGES = read_stages()


def built_by(service: dict[str, Any]) -> Stage:
    """The stage a service runs: its own build, or that of the service which builds the image it names."""
    [target] = {other["build"]["target"] for other in SERVICES.values() if "build" in other and shares(other, service)}
    return STAGES[target]


def shares(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return bool(one["image"] == other["image"])


def filled_in(value: str) -> str:
    """The text of a compose value on a machine where no variable is set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)


def seconds(duration: str) -> int:
    return int(duration.removesuffix("s"))


def requirements(extra: str) -> set[str]:
    """Names of the packages of an extra, including those of other extras of ours that it names."""
    names: set[str] = set()
    for requirement in PROJECT["optional-dependencies"][extra]:
        if own := re.fullmatch(r"wavserve\[(.+)\]", requirement):
            names = names.union(*(requirements(part.strip()) for part in own[1].split(",")))
        else:
            names.add(re.split(r"[\[<>=~! ;]", requirement)[0].lower())
    return names


def run(*command: str | Path) -> None:
    done = subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_hadolint_finds_no_fault_in_the_dockerfile() -> None:
    run(Path(sysconfig.get_path("scripts")) / "hadolint", "Dockerfile")


def test_the_compose_file_is_valid_by_its_schema() -> None:
    run(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml")


def test_base_images_are_pinned_to_a_release() -> None:
    images = {stage.image for stage in STAGES.values()} - STAGES.keys()
    assert images
    assert all(re.fullmatch(r".+:\d+\.\d+.*", image) for image in images), images


def test_copied_files_exist_and_reach_the_builder() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")
    sent = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert "*" in ignored, "everything else stays out"
    for word, text in (step for stage in STAGES.values() for step in stage.steps):
        sources = [part for part in shlex.split(text)[:-1] if not part.startswith("--")] if word == "COPY" else []
        if word == "RUN":
            sources = re.findall(r"type=bind,source=([^,\s]+)", text)
        assert all((ROOT / source).exists() for source in sources), text
        assert all(any(fnmatch(source, pattern) for pattern in sent) for source in sources), text


def test_the_gateway_installs_no_torch_and_triton_installs_the_pinned_one_first() -> None:
    steps = {name: " ".join(text for word, text in STAGES[name].steps if word == "RUN") for name in STAGES}
    assert re.findall(r"\$1\[(.+?)\]", steps["gateway"]) == ["gateway,otel"]
    assert "torch" not in steps["gateway"]
    assert not requirements("gateway") & TORCH_STACK
    assert requirements("models") >= TORCH_STACK
    [pin] = re.findall(r"^torch==.+", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert f" {pin} " in steps["triton"]
    assert steps["triton"].index(pin) < steps["triton"].index("$1[models]")


@pytest.mark.parametrize("name", OURS)
def test_a_service_is_pinned_restricted_and_health_checked(name: str) -> None:
    service = SERVICES[name]
    stage = built_by(service)
    assert service["image"].endswith(f":{PROJECT['version']}")
    assert ("build" in service) or service["pull_policy"] == "never"
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", stage.last("USER")), "a user who is not root, by number"
    assert "user" not in service
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert "privileged" not in service
    one_shot = service["restart"] == "no"
    assert one_shot or (stage.last("HEALTHCHECK") and "healthcheck" not in service)
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_every_profile_is_a_complete_system(profile: str) -> None:
    active = {name: service for name, service in SERVICES.items() if profile in service["profiles"]}
    for service in active.values():
        needs = service.get("depends_on", {})
        assert {need for need, how in needs.items() if how.get("required", True)} <= active.keys()
    host, _, port = argument_of(STAGES["gateway"].command(), "--triton-url").partition(":")
    [triton] = [name for name, service in active.items() if host in aliases(service, "models")]
    assert "models" in SERVICES["gateway"]["networks"]
    assert port in STAGES["triton"].last("EXPOSE").split()
    assert SERVICES["gateway"]["depends_on"][triton]["condition"] == "service_healthy"
    assert ("deploy" in SERVICES[triton]) == (profile == "gpu")


def aliases(service: dict[str, Any], network: str) -> list[str]:
    networks = service.get("networks", {})
    return networks[network]["aliases"] if isinstance(networks, dict) and network in networks else []


def argument_of(command: list[str], flag: str) -> str:
    return command[command.index(flag) + 1]


def test_a_stopped_container_has_enough_time() -> None:
    drain_s = Settings().limits.drain_s
    assert seconds(SERVICES["gateway"]["stop_grace_period"]) >= drain_s + 10
    [exit_s] = re.findall(r"--exit-timeout-secs=(\d+)", STAGES["triton"].last("CMD"))
    for name in ("triton-cpu", "triton-gpu"):
        assert seconds(SERVICES[name]["stop_grace_period"]) > int(exit_s)


def test_the_image_sets_the_variables_of_processes_that_compute() -> None:
    variables = dict(pair.split("=", 1) for pair in shlex.split(STAGES["triton"].last("ENV")))
    assert COMPUTE_ENVIRONMENT.items() <= variables.items()


def test_triton_runs_as_many_models_at_once_as_the_gateway_calls() -> None:
    assert "--rate-limit-resource=gpu:$MODELS_AT_ONCE" in STAGES["triton"].last("CMD")
    variables = dict(pair.split("=", 1) for pair in shlex.split(STAGES["triton"].last("ENV")))
    assert variables["MODELS_AT_ONCE"] == "1"
    assert SERVICES["triton-cpu"]["environment"]["MODELS_AT_ONCE"] == str(MODELS_AT_ONCE_ON_CPU)


def test_triton_loads_every_model_there_is() -> None:
    loaded = re.findall(r"--load-model=(\w+)", STAGES["triton"].last("CMD"))
    assert sorted(loaded) == sorted(path.parent.name for path in ROOT.glob("model_repository/*/config.pbtxt"))


@pytest.mark.parametrize("name", OURS)
def test_settings_in_the_environment_are_known(name: str) -> None:
    environment = SERVICES[name].get("environment", {})
    load_settings(None, {key: filled_in(str(value)) for key, value in environment.items()})


def test_wavserve_accepts_the_gateways_command() -> None:
    given = build_parser().parse_args(STAGES["gateway"].command()).given
    settings = load_settings(None, {}, [Given(*one) for one in given]).settings
    assert (settings.http.host, settings.grpc.host) == ("0.0.0.0", "0.0.0.0")
    assert {f"127.0.0.1:{port}:{port}" for port in (settings.http.port, settings.grpc.port)} == set(
        SERVICES["gateway"]["ports"]
    )
