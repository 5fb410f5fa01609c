"""Redis, Prometheus, Alertmanager, Grafana beside our services in docker-compose.yml: pinned, restricted, by files."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from redis import Redis

from loadtest.redis_server import redis_server
from tests.deploy.overlays import ROOT
from tests.house.test_containers import COMPOSE, OURS, SERVICES, STAGES, aliases
from wavserve.app.settings import Settings
from wavserve.app.settings_sources import load_settings

OTHERS = {name: service for name, service in SERVICES.items() if name not in OURS}
PROMETHEUS = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
PROVISIONING = ROOT / "deploy/grafana/provisioning"
SESSION_BYTES = 800_000
"""Of `piper`, the largest."""


def networks(service: dict[str, Any]) -> set[str]:
    return set(service["networks"])


def mounts(service: dict[str, Any]) -> dict[str, Path]:
    """Files of this repository by the path at which a service sees them. Every one is read-only."""
    parts = [volume.split(":") for volume in service["volumes"] if volume.startswith("./")]
    assert all(mode == "ro" for _, _, mode in parts)
    return {target: ROOT / source for source, target, _ in parts}


def seen_as(service: dict[str, Any], path: str) -> Path:
    """The file of this repository that a service sees at a path."""
    [(target, source)] = [item for item in mounts(service).items() if Path(path).is_relative_to(item[0])]
    return source / Path(path).relative_to(target)


@pytest.mark.parametrize("name", OTHERS)
def test_a_service_of_others_is_pinned_restricted_and_health_checked(name: str) -> None:
    service = OTHERS[name]
    assert re.fullmatch(r"\S+:v?\d+\.\d+\S*", service["image"])
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["read_only"]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert all(source.exists() for source in mounts(service).values())


def test_what_shows_metrics_comes_with_a_profile_of_its_own_and_redis_always() -> None:
    assert {name: service["profiles"] for name, service in OTHERS.items()} == {
        "redis": ["cpu", "gpu"],
        "prometheus": ["metrics"],
        "alertmanager": ["metrics"],
        "grafana": ["metrics"],
    }


def test_every_network_and_volume_is_declared() -> None:
    assert {network for service in SERVICES.values() for network in service.get("networks", [])} == COMPOSE[
        "networks"
    ].keys()
    named = {volume.partition(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert {name for name in named if not name.startswith(".")} == COMPOSE["volumes"].keys()


def test_only_the_gateway_reaches_redis_and_nothing_outside_does() -> None:
    [network] = OTHERS["redis"]["networks"]
    assert {name for name, service in SERVICES.items() if network in service.get("networks", [])} == {
        "redis",
        "gateway",
    }
    assert COMPOSE["networks"][network]["internal"]
    assert "ports" not in OTHERS["redis"]


def test_the_gateway_keeps_its_sessions_in_redis() -> None:
    gateway = SERVICES["gateway"]
    url = load_settings(None, gateway["environment"]).settings.sessions.url
    assert url is not None
    assert url.get_secret_value() == "redis://redis:6379/0"
    assert gateway["depends_on"]["redis"] == {"condition": "service_healthy"}


def test_redis_keeps_sessions_in_memory_and_evicts_none() -> None:
    configuration = seen_as(OTHERS["redis"], OTHERS["redis"]["command"][-1])
    with redis_server("--include", str(configuration)) as server, Redis.from_url(server.url) as client:
        shown = client.config_get("save", "appendonly", "maxmemory", "maxmemory-policy", "protected-mode")
    assert int(shown.pop("maxmemory")) > Settings().sessions.max_sessions * SESSION_BYTES
    assert shown == {"save": "", "appendonly": "no", "maxmemory-policy": "noeviction", "protected-mode": "no"}


def test_prometheus_scrapes_services_that_it_reaches() -> None:
    service = OTHERS["prometheus"]
    [flag] = [part for part in service["command"] if part.startswith("--config.file=")]
    assert seen_as(service, flag.partition("=")[2]) == ROOT / "deploy/prometheus/prometheus.yml"
    targets = {
        job["job_name"]: target
        for job in PROMETHEUS["scrape_configs"]
        for group in job["static_configs"]
        for target in group["targets"]
    }
    assert targets == {"gateway": f"gateway:{Settings().http.port}", "triton": "triton:8002"}
    assert "8002" in STAGES["triton"].last("EXPOSE").split()
    assert "models" in networks(service)
    assert networks(service) & networks(SERVICES["gateway"])
    assert all(aliases(SERVICES[name], "models") == ["triton"] for name in ("triton-cpu", "triton-gpu"))


def test_prometheus_accepts_its_configuration() -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool, which checks the configuration, is not installed")
    command = ["promtool", "check", "config", ROOT / "deploy/prometheus/prometheus.yml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_tells_the_alertmanager_that_it_reaches() -> None:
    service = OTHERS["alertmanager"]
    [alertmanagers] = PROMETHEUS["alerting"]["alertmanagers"]
    port = service["ports"][0].rpartition(":")[2]
    assert alertmanagers["static_configs"] == [{"targets": [f"alertmanager:{port}"]}]
    assert networks(service) & networks(OTHERS["prometheus"])
    [flag] = [part for part in service["command"] if part.startswith("--config.file=")]
    assert seen_as(service, flag.partition("=")[2]) == ROOT / "deploy/prometheus/alertmanager.yml"


def test_grafana_asks_the_prometheus_that_it_reaches() -> None:
    [source] = yaml.safe_load((PROVISIONING / "datasources/prometheus.yaml").read_text())["datasources"]
    port = OTHERS["prometheus"]["ports"][0].rpartition(":")[2]
    assert (source["type"], source["url"]) == ("prometheus", f"http://prometheus:{port}")
    assert source["jsonData"]["timeInterval"] == PROMETHEUS["global"]["scrape_interval"]
    assert networks(OTHERS["grafana"]) & networks(OTHERS["prometheus"])


def test_grafana_is_set_up_by_our_files() -> None:
    grafana = OTHERS["grafana"]
    assert seen_as(grafana, grafana["environment"]["GF_PATHS_PROVISIONING"]) == PROVISIONING
    for provider in (PROVISIONING / "dashboards").iterdir():
        [only] = yaml.safe_load(provider.read_text())["providers"]
        assert seen_as(grafana, only["options"]["path"]) == ROOT / "deploy/grafana/dashboards"


def test_nobody_can_log_in_to_grafana() -> None:
    environment = OTHERS["grafana"]["environment"]
    assert environment["GF_AUTH_DISABLE_LOGIN_FORM"] == "true"
    assert environment["GF_AUTH_BASIC_ENABLED"] == "false"
    assert "GF_AUTH_ANONYMOUS_ORG_ROLE" not in environment, "by default a viewer"
