"""The overlays of deploy/kubernetes as kubectl renders them, and what their objects contain."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy/kubernetes"
OVERLAYS = sorted(path.name for path in (KUBERNETES / "overlays").iterdir())

POD_IP = "10.244.1.7"
"""What a variable from `status.podIP` may be."""

Object = dict[str, Any]

_UNITS = {"": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


@dataclass(frozen=True)
class Overlay:
    """The objects of one overlay."""

    name: str
    objects: tuple[Object, ...]

    def of(self, *kinds: str) -> list[Object]:
        return [each for each in self.objects if each["kind"] in kinds]

    def named(self, kind: str, name: str) -> Object:
        [found] = [each for each in self.of(kind) if each["metadata"]["name"] == name]
        return found

    @property
    def workloads(self) -> list[Object]:
        return self.of("Deployment", "StatefulSet")

    def templates(self, labels: Mapping[str, str]) -> list[Object]:
        """The pod templates that have these labels."""
        templates = [each["spec"]["template"] for each in self.workloads]
        return [each for each in templates if labels.items() <= each["metadata"]["labels"].items()]

    def container(self, kind: str, name: str) -> Object:
        """The container that has its workload's name."""
        [found] = [each for each in pod_of(self.named(kind, name))["containers"] if each["name"] == name]
        return dict(found)

    def environment(self, container: Object) -> dict[str, str]:
        """A container's variables, from its ConfigMaps and of its own."""
        sources = [source["configMapRef"]["name"] for source in container.get("envFrom", [])]
        variables = {
            name: value for source in sources for name, value in self.named("ConfigMap", source)["data"].items()
        }
        return variables | {each["name"]: each.get("value", POD_IP) for each in container.get("env", [])}


@cache
def rendered(name: str) -> Overlay:
    """An overlay by name. Skips the test where kubectl is missing."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl, which renders the overlays, is not installed")
    done = subprocess.run(
        ["kubectl", "kustomize", KUBERNETES / "overlays" / name], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return Overlay(name, tuple(yaml.safe_load_all(done.stdout)))


def pod_of(workload: Object) -> Object:
    return dict(workload["spec"]["template"]["spec"])


def containers_of(pod: Object) -> list[Object]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def ports_of(pod: Object) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for each in pod["containers"] for port in each.get("ports", [])}


def volumes_of(workload: Object) -> dict[str, Object]:
    """A workload's volumes by name; one of a claim is empty."""
    claims = [claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])]
    return {each["name"]: each for each in pod_of(workload).get("volumes", [])} | {name: {} for name in claims}


def bytes_of(quantity: str) -> int:
    """Bytes of a Kubernetes quantity such as 2Gi."""
    found = re.fullmatch(r"(\d+)([KMG]i|)", quantity)
    assert found, quantity
    return int(found[1]) * _UNITS[found[2]]


def values_of(tree: Any, key: str) -> Iterator[Any]:
    """Every value of a key, anywhere in an object."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            if name == key:
                yield value
            yield from values_of(value, key)
    if isinstance(tree, list):
        for each in tree:
            yield from values_of(each, key)
