"""Pods fit what runs in them: images, users, writable folders, memory, times and probes."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.deploy.overlays import (
    Object,
    Overlay,
    bytes_of,
    containers_of,
    pod_of,
    volumes_of,
)
from tests.edge.fakes import RecordingPolicy, example_limits
from tests.edge.robots import serving
from tests.house.test_containers import OURS, PROJECT, ROOT, SERVICES, STAGES
from wavserve.app.edges import GRACE_S
from wavserve.app.members import MISSING_ANSWERS
from wavserve.app.settings import BundleSettings, Settings
from wavserve.app.settings_sources import load_settings
from wavserve.bundle.bundle import load_spec
from wavserve.core.spec import PolicySpec
from wavserve.core.verbs import MODELS
from wavserve.edge.http.open_connections import ConnectionLimits
from wavserve.models.arena.arena import SlotShape
from wavserve.models.weights.preset_specs import PRESETS
from wavserve.system.telemetry import Metrics

END_S = 10.0
"""How long a gateway may take to end once its last answers are sent."""
DNS_CACHE_S = 30.0
"""How long CoreDNS caches by default."""
LONGEST_PLAN_S = 5.0
"""A plan of K = 5 on an H100 takes 2 s."""
VOLUMES = {"emptyDir", "secret", "configMap", "persistentVolumeClaim"}
"""What a restricted pod may mount and ours do."""


def stage_of(container: Object) -> str:
    """The stage of the Dockerfile that makes a container's image."""
    return str(container["image"]).removeprefix("wavserve-").partition(":")[0]


def test_images_are_those_that_compose_builds(overlay: Overlay) -> None:
    built = {service["image"] for service in OURS.values()}
    used = {each["image"] for workload in overlay.workloads for each in containers_of(pod_of(workload))}
    assert used == built
    assert all(image.endswith(f":{PROJECT['version']}") for image in used)


def test_pods_are_restricted(overlay: Overlay) -> None:
    [namespace] = overlay.of("Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for workload in overlay.workloads:
        pod = pod_of(workload)
        security = pod["securityContext"]
        assert security["runAsNonRoot"]
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not pod["automountServiceAccountToken"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        for volume in pod["volumes"]:
            assert volume.keys() - {"name"} <= VOLUMES
        for container in containers_of(pod):
            user, group = STAGES[stage_of(container)].last("USER").split(":")
            assert (security["runAsUser"], security["runAsGroup"]) == (int(user), int(group))
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_folders_that_are_written_to_are_writable(overlay: Overlay) -> None:
    """`/tmp`, for whatever takes Python's default; beside it the bundle's folder where it is made, and the arena's."""
    for workload in overlay.workloads:
        for container in containers_of(pod_of(workload)):
            writable = {each["mountPath"] for each in container["volumeMounts"] if not each.get("readOnly")}
            expected = {"gateway": {"/tmp"}, "bundle": {"/tmp", "/bundles"}, "triton": {"/tmp", "/dev/shm"}}
            assert writable == expected[container["name"]]
    variables = STAGES["triton"].last("ENV")
    assert "HF_HOME=/tmp/" in variables
    assert overlay.environment(overlay.container("StatefulSet", "triton"))["HOME"] == "/tmp"


def test_the_bundles_settings_agree(overlay: Overlay) -> None:
    triton = overlay.container("StatefulSet", "triton")
    bundle = triton_settings(overlay).bundle
    assert bundle.presets == Path("/bundles")
    assert "/bundles" in {each["mountPath"] for each in triton["volumeMounts"]}
    [init] = pod_of(overlay.named("StatefulSet", "triton"))["initContainers"]
    assert init["command"] == SERVICES["bundle"]["command"]


def triton_settings(overlay: Overlay) -> Settings:
    return load_settings(None, overlay.environment(overlay.container("StatefulSet", "triton"))).settings


def served(settings: BundleSettings) -> Iterator[PolicySpec]:
    """What the models may serve: the preset, or the trained policy of the image."""
    yield PRESETS[settings.created]().spec
    if folder := settings.model_copy(update={"policies": ROOT / "policies"}).shipped:
        yield load_spec(folder)


def test_shared_memory_holds_the_arena_and_the_calls(overlay: Overlay) -> None:
    settings = triton_settings(overlay)
    slot = max(SlotShape.of(spec).elements for spec in served(settings.bundle))
    on_gpu = settings.backend.device == "cuda"
    itemsize = {"float32": 4, "bfloat16": 2}[settings.backend.dtype]
    arena = 0 if on_gpu else settings.arena.num_slots * slot * itemsize
    needed = arena + len(MODELS) * settings.triton.shm_bytes
    shm = volumes_of(overlay.named("StatefulSet", "triton"))["shm"]["emptyDir"]
    assert shm["medium"] == "Memory"
    assert bytes_of(shm["sizeLimit"]) > 2 * needed, "calls may need more than they begin with"
    limit = bytes_of(overlay.container("StatefulSet", "triton")["resources"]["limits"]["memory"])
    assert limit > 2 * bytes_of(shm["sizeLimit"]), "what is in /dev/shm counts as the container's memory"


def test_a_gateway_has_memory_for_its_requests(overlay: Overlay) -> None:
    limit = bytes_of(overlay.container("Deployment", "gateway")["resources"]["limits"]["memory"])
    assert limit > 2 * Settings().limits.max_inflight_bytes


def test_one_model_at_a_time_uses_a_gpu_and_a_pod_has_one(overlay: Overlay) -> None:
    triton = overlay.container("StatefulSet", "triton")
    gpus = triton["resources"]["limits"].get("nvidia.com/gpu", "0")
    assert (gpus, overlay.environment(triton)["MODELS_AT_ONCE"]) in (("0", "2"), ("1", "1"))
    assert (gpus == "1") == (triton_settings(overlay).backend.device == "cuda")


def test_a_pod_that_ends_has_enough_time(overlay: Overlay) -> None:
    pause = overlay.container("Deployment", "gateway")["lifecycle"]["preStop"]["sleep"]["seconds"]
    gateway = pod_of(overlay.named("Deployment", "gateway"))
    readiness = overlay.container("Deployment", "gateway")["readinessProbe"]
    assert pause >= readiness["periodSeconds"] * readiness["failureThreshold"]
    needed = pause + Settings().limits.drain_s + GRACE_S + END_S
    assert gateway["terminationGracePeriodSeconds"] >= needed


def test_a_triton_that_ends_still_plans_until_the_gateways_know(overlay: Overlay) -> None:
    pause = overlay.container("StatefulSet", "triton")["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pause >= DNS_CACHE_S + MISSING_ANSWERS * Settings().triton.discovery_s + LONGEST_PLAN_S
    [exit_s] = re.findall(r"--exit-timeout-secs=(\d+)", STAGES["triton"].last("CMD"))
    assert pod_of(overlay.named("StatefulSet", "triton"))["terminationGracePeriodSeconds"] > pause + int(exit_s)


def test_a_start_has_enough_time(overlay: Overlay) -> None:
    load_s = Settings().triton.load_s
    for kind, name in (("Deployment", "gateway"), ("StatefulSet", "triton")):
        probe = overlay.container(kind, name)["startupProbe"]
        assert probe["periodSeconds"] * probe["failureThreshold"] > load_s


def test_a_slow_pod_is_not_restarted_soon(overlay: Overlay) -> None:
    for kind, name in (("Deployment", "gateway"), ("StatefulSet", "triton")):
        probe = overlay.container(kind, name)["livenessProbe"]
        assert probe["periodSeconds"] * probe["failureThreshold"] >= Settings().triton.hang_s


def test_the_gateways_probes_ask_real_routes(overlay: Overlay) -> None:
    policy = RecordingPolicy()
    container = overlay.container("Deployment", "gateway")
    startup, readiness = (container[name]["httpGet"]["path"] for name in ("startupProbe", "readinessProbe"))
    scraped = [
        endpoint["path"]
        for monitor in overlay.of("ServiceMonitor")
        if monitor["metadata"]["name"] == "gateway"
        for endpoint in monitor["spec"]["endpoints"]
    ]
    with serving(policy, example_limits(), Metrics()) as address, httpx.Client(base_url=address.http) as client:
        assert {client.get(path).status_code for path in (startup, readiness, *scraped)} == {200}
        policy.ready = False
        assert client.get(startup).status_code == 200, "no device works: a restart would not help"
        assert client.get(readiness).status_code == 503


def test_tritons_probe_is_that_of_its_image(overlay: Overlay) -> None:
    container = overlay.container("StatefulSet", "triton")
    assert f":8000{container['startupProbe']['httpGet']['path']}" in STAGES["triton"].last("HEALTHCHECK")


def test_a_triton_that_is_repaired_stays_in_dns(overlay: Overlay) -> None:
    """Readiness is about the server: a model that is loaded again would take the pod from the gateway that loads it."""
    container = overlay.container("StatefulSet", "triton")
    assert container["readinessProbe"]["httpGet"] == container["livenessProbe"]["httpGet"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/v2/health/live"


def probed(overlay: Overlay, port: int) -> subprocess.CompletedProcess[bytes]:
    """Runs the gateway's liveness probe against another port."""
    python, *arguments = overlay.container("Deployment", "gateway")["livenessProbe"]["exec"]["command"]
    assert python == "python"
    script = [part.replace("8000", str(port)) for part in arguments]
    return subprocess.run([sys.executable, *script], capture_output=True, check=False, timeout=60)


@pytest.mark.parametrize("taken", [0, 3])
def test_a_gateway_lives_while_it_answers_also_without_a_free_connection(overlay: Overlay, taken: int) -> None:
    limits = ConnectionLimits(max_connections=3, max_per_address=3)
    with serving(RecordingPolicy(), example_limits(), Metrics(), limits) as address, ExitStack() as stack:
        for _ in range(taken):
            client = stack.enter_context(httpx.Client(base_url=address.http))
            assert client.get("/healthz").status_code == 200
        refused = httpx.get(address.http + "/healthz").status_code if taken else 200
        port = urlsplit(address.http).port
        assert port is not None
        done = probed(overlay, port)
    assert refused == (503 if taken else 200)
    assert done.returncode == 0, done.stderr
    assert probed(overlay, port).returncode != 0, "nobody listens any more"
