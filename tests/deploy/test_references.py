"""What one object says of another is true: names, labels, ports, volumes, ConfigMaps and Secrets."""

from __future__ import annotations

from tests.deploy.overlays import (
    POD_IP,
    ROOT,
    Object,
    Overlay,
    containers_of,
    pod_of,
    ports_of,
    values_of,
    volumes_of,
)
from wavserve.app.settings import Settings
from wavserve.app.settings_sources import load_settings
from wavserve.core.address import DnsName, parse_dns_name

SECRETS = {"cpu-demo": set(), "gpu": set(), "gpu-ha": {"sessions-redis"}}
"""The Secrets that a user creates."""
OUTSIDE = {
    ("kubernetes.io/metadata.name", "kube-system"): "`kube-system`",
    ("kubernetes.io/metadata.name", "monitoring"): "`monitoring`",
    ("wavserve-robots", "allowed"): "`wavserve-robots=allowed`",
}
"""Labels of namespaces that are not ours, and how docs/kubernetes.md names them."""
DOCS = (ROOT / "docs/kubernetes.md").read_text(encoding="utf-8")


def settings_of(overlay: Overlay, container: Object) -> Settings:
    """The settings that a container gets. Raises SettingsError for one that does not exist."""
    return load_settings(None, overlay.environment(container)).settings


def test_all_objects_are_in_the_namespace_that_is_created(overlay: Overlay) -> None:
    [namespace] = overlay.of("Namespace")
    names = {each["metadata"]["namespace"] for each in overlay.objects if each is not namespace}
    assert names == {namespace["metadata"]["name"]}


def test_every_selector_selects_pods(overlay: Overlay) -> None:
    for each in overlay.of("Deployment", "StatefulSet", "PodDisruptionBudget"):
        assert overlay.templates(each["spec"]["selector"]["matchLabels"])
    for each in overlay.of("Service"):
        assert overlay.templates(each["spec"]["selector"])
    for policy in overlay.of("NetworkPolicy"):
        for selector in values_of(policy["spec"], "podSelector"):
            assert overlay.templates(selector.get("matchLabels", {})), policy["metadata"]["name"]
    for workload in overlay.workloads:
        for selector in values_of(pod_of(workload), "labelSelector"):
            assert overlay.templates(selector["matchLabels"]) == [workload["spec"]["template"]]


def test_a_workload_selects_its_own_pods_alone(overlay: Overlay) -> None:
    for workload in overlay.workloads:
        assert overlay.templates(workload["spec"]["selector"]["matchLabels"]) == [workload["spec"]["template"]]


def test_services_send_to_ports_that_containers_have(overlay: Overlay) -> None:
    for service in overlay.of("Service"):
        for template in overlay.templates(service["spec"]["selector"]):
            known = ports_of(template["spec"])
            for port in service["spec"]["ports"]:
                assert known[port["targetPort"]] == port["port"]


def test_probes_ask_ports_that_containers_have(overlay: Overlay) -> None:
    for workload in overlay.workloads:
        for probe in values_of(pod_of(workload), "httpGet"):
            assert probe["port"] in ports_of(pod_of(workload))


def test_network_policies_allow_ports_that_containers_have(overlay: Overlay) -> None:
    for policy in overlay.of("NetworkPolicy"):
        spec = policy["spec"]
        own = overlay.templates(spec["podSelector"].get("matchLabels", {}))
        for rule in spec.get("ingress", []):
            for port in rule["ports"]:
                assert all(port["port"] in ports_of(template["spec"]) for template in own)
        for rule in spec.get("egress", []):
            for peer in rule.get("to", []):
                peers = overlay.templates(peer["podSelector"]["matchLabels"]) if "podSelector" in peer else []
                for port in rule["ports"]:
                    # a number: not every network resolves the names of another pod's ports
                    assert all(port["port"] in ports_of(template["spec"]).values() for template in peers)


def test_network_policies_name_namespaces_that_the_docs_name(overlay: Overlay) -> None:
    for policy in overlay.of("NetworkPolicy"):
        for selector in values_of(policy["spec"], "namespaceSelector"):
            [label] = selector["matchLabels"].items()
            assert OUTSIDE[label] in DOCS


def test_every_pod_has_a_policy_and_only_gateways_reach_triton(overlay: Overlay) -> None:
    everyone = [each for each in overlay.of("NetworkPolicy") if each["spec"]["podSelector"] == {}]
    assert [set(each["spec"]["policyTypes"]) for each in everyone] == [{"Ingress", "Egress"}]
    grpc = [
        rule["from"]
        for policy in overlay.of("NetworkPolicy")
        if policy["spec"]["podSelector"].get("matchLabels") == {"app.kubernetes.io/component": "triton"}
        for rule in policy["spec"]["ingress"]
        if {port["port"] for port in rule["ports"]} & {"grpc", "http"}
    ]
    assert grpc == [[{"podSelector": {"matchLabels": {"app.kubernetes.io/component": "gateway"}}}]]


def test_service_monitors_scrape_ports_of_services(overlay: Overlay) -> None:
    for monitor in overlay.of("ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        services = [each for each in overlay.of("Service") if wanted <= each["metadata"]["labels"].items()]
        assert len(services) == 1
        names = {port["name"] for port in services[0]["spec"]["ports"]}
        assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= names


def test_prometheus_may_connect_where_it_scrapes(overlay: Overlay) -> None:
    for monitor in overlay.of("ServiceMonitor"):
        [policy] = [
            each
            for each in overlay.of("NetworkPolicy")
            if each["metadata"]["name"] == f"prometheus-to-{monitor['metadata']['name']}"
        ]
        assert policy["spec"]["podSelector"] == monitor["spec"]["selector"]
        allowed = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
        assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} == allowed


def test_mounted_volumes_exist_and_all_are_mounted(overlay: Overlay) -> None:
    for workload in overlay.workloads:
        mounted = {mount["name"] for each in containers_of(pod_of(workload)) for mount in each.get("volumeMounts", [])}
        assert mounted == volumes_of(workload).keys()


def test_configmaps_exist_and_all_are_used(overlay: Overlay) -> None:
    used = {ref["name"] for workload in overlay.workloads for ref in values_of(pod_of(workload), "configMapRef")}
    ours = [each for each in overlay.of("ConfigMap") if "grafana_dashboard" not in each["metadata"].get("labels", {})]
    assert used == {each["metadata"]["name"] for each in ours}


def test_secrets_are_those_that_a_user_creates(overlay: Overlay) -> None:
    used = {secret["secretName"] for workload in overlay.workloads for secret in values_of(pod_of(workload), "secret")}
    assert used == SECRETS[overlay.name]
    assert all(name in DOCS for name in used)
    assert not overlay.of("Secret")


def test_settings_are_known(overlay: Overlay) -> None:
    gateway = settings_of(overlay, overlay.container("Deployment", "gateway"))
    assert (gateway.backend.kind, gateway.http.host, gateway.grpc.host) == ("triton", "0.0.0.0", "0.0.0.0")
    assert ports_of(pod_of(overlay.named("Deployment", "gateway"))) == {
        "http": gateway.http.port,
        "grpc": gateway.grpc.port,
    }
    triton = overlay.container("StatefulSet", "triton")
    assert settings_of(overlay, triton).bundle.root is not None
    [bundle] = pod_of(overlay.named("StatefulSet", "triton"))["initContainers"]
    assert bundle["envFrom"] == triton["envFrom"]


def test_the_redis_url_is_read_from_the_secrets_file(overlay: Overlay) -> None:
    container = overlay.container("Deployment", "gateway")
    path = settings_of(overlay, container).sessions.url_file
    mounts = {
        mount["mountPath"]: volumes_of(overlay.named("Deployment", "gateway"))[mount["name"]]
        for mount in container["volumeMounts"]
    }
    if path is None:
        replicas = overlay.named("Deployment", "gateway")["spec"].get("replicas")
        assert replicas == 1, "sessions are in the gateway's memory"
        return
    assert "secret" in mounts[str(path.parent)]
    assert path.name == "url"


def test_gateways_find_tritons_and_each_other_by_headless_services(overlay: Overlay) -> None:
    settings = settings_of(overlay, overlay.container("Deployment", "gateway")).triton
    [tritons], [gateways] = settings.urls, settings.gateways
    stateful = overlay.named("StatefulSet", "triton")
    port = ports_of(pod_of(stateful))["grpc"]
    assert tritons == str(DnsName(stateful["spec"]["serviceName"], port))
    for name, kind in ((parse_dns_name(tritons).host, "triton"), (parse_dns_name(gateways, False).host, "gateway")):
        service = overlay.named("Service", name)["spec"]
        assert service["clusterIP"] == "None"
        assert service["selector"] == {"app.kubernetes.io/component": kind}
        assert not service.get("publishNotReadyAddresses"), "a pod that ends must leave DNS while it still works"


def test_a_gateway_knows_itself_among_the_addresses_in_dns(overlay: Overlay) -> None:
    container = overlay.container("Deployment", "gateway")
    [own] = [each for each in container["env"] if each["name"] == "WAVSERVE_TRITON__GATEWAY"]
    assert own["valueFrom"] == {"fieldRef": {"fieldPath": "status.podIP"}}
    assert settings_of(overlay, container).triton.gateway == POD_IP


def test_gateways_may_ask_dns_also_for_long_answers(overlay: Overlay) -> None:
    rules = [
        rule for rule in overlay.named("NetworkPolicy", "gateway")["spec"]["egress"] if "podSelector" not in str(rule)
    ]
    assert [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}] in [rule["ports"] for rule in rules]
