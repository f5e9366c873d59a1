"""What the manifests must be and no schema says. `make manifests` has the schemas and the rules."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from ipaddress import ip_network
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import pytest
import yaml
from opentelemetry.sdk import environment_variables

from deploy.manifests import COMBINATIONS, KUBERNETES, render
from headstart_service.config.loading import load_settings
from headstart_service.config.settings import Settings, variable
from headstart_service.domain import Status
from headstart_service.store.keys import Installation, PartitionKeys
from tests.support.processes import ROOT

Resource: TypeAlias = Mapping[str, Any]
DEFAULTS = Settings.model_fields
VARIABLES = {variable(name) for name in DEFAULTS}
OF_OTHERS = {name for name in dir(environment_variables) if name.startswith("OTEL_")}
SCALED = [name for name, (_, parts) in COMBINATIONS.items() if "keda" in parts or "prod" in name]


@cache
def resources(name: str) -> tuple[Resource, ...]:
    return tuple(each for each in yaml.safe_load_all(render(name)) if each)


def of_kind(name: str, kind: str) -> list[Resource]:
    return [each for each in resources(name) if each["kind"] == kind]


def named(name: str, kind: str, what: str) -> Resource:
    [found] = [each for each in of_kind(name, kind) if each["metadata"]["name"] == what]
    return found


def pods(name: str) -> Iterator[tuple[str, Resource, Resource]]:
    """Each workload's name, pod template's metadata and spec."""
    for each in resources(name):
        if each["kind"] in {"Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob"}:
            template = each["spec"]["template"]
            yield each["metadata"]["name"], template["metadata"], template["spec"]


def containers(name: str) -> Iterator[tuple[str, Resource]]:
    for workload, _, spec in pods(name):
        for container in (*spec.get("initContainers", ()), *spec["containers"]):
            yield f"{workload}/{container['name']}", container


def environment(name: str, workload: str) -> dict[str, str]:
    """A workload's variables: its ConfigMaps' and its own; what a Secret gives is `secret`."""
    values: dict[str, str] = {}
    [spec] = [spec for each, _, spec in pods(name) if each == workload]
    [container] = spec["containers"]
    for source in container.get("envFrom", ()):
        values |= named(name, "ConfigMap", source["configMapRef"]["name"])["data"]
    for item in container.get("env", ()):
        values[item["name"]] = item.get("value", "secret")
    return values


def fits(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return selector.items() <= labels.items()


every = pytest.mark.parametrize("name", COMBINATIONS)


@every
def test_every_pod_is_restricted(name: str):
    for workload, _, spec in pods(name):
        context = spec["securityContext"]
        assert context["runAsNonRoot"] is True, workload
        assert context["runAsUser"] > 0, workload
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, workload
        assert spec["automountServiceAccountToken"] is False, workload
        # HEADSTART_… variables of Services would be taken for settings.
        assert spec["enableServiceLinks"] is False, workload
    for what, container in containers(name):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, what


@every
def test_every_container_has_probes_and_a_memory_limit_that_it_requests(name: str):
    for what, container in containers(name):
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert probe in container, f"{what}: {probe}"
        wanted, limits = container["resources"]["requests"], container["resources"]["limits"]
        assert limits == {"memory": wanted["memory"]}, what
        assert "cpu" in wanted, what


@every
def test_an_outage_of_redis_restarts_nobody(name: str):
    for what, container in containers(name):
        if what.startswith("headstart-"):
            for probe in ("startupProbe", "livenessProbe"):
                assert container[probe]["httpGet"] == {"path": "/livez", "port": "http"}, what
            assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}


@every
def test_image_tags_are_pinned(name: str):
    for what, container in containers(name):
        _, _, tag = container["image"].rpartition("/")[2].partition(":")
        assert re.fullmatch(r"\d+\.\d+\.\d+(-\w+)?", tag), f"{what}: {container['image']}"


@every
def test_ports_are_those_that_the_settings_give(name: str):
    for workload in ("headstart-api", "headstart-worker"):
        given = environment(name, workload)
        [container] = [each for what, each in containers(name) if what.startswith(f"{workload}/")]
        ports = {port["name"]: str(port["containerPort"]) for port in container["ports"]}
        assert ports.pop("http") == given["HEADSTART_HTTP_PORT"]
        assert int(given["HEADSTART_HTTP_PORT"]) == DEFAULTS["http_port"].default
        if workload == "headstart-api":
            assert ports.pop("grpc") == given["HEADSTART_GRPC_PORT"]
            assert int(given["HEADSTART_GRPC_PORT"]) == DEFAULTS["grpc_port"].default
        assert not ports


@every
def test_every_variable_is_a_setting_with_a_right_value(name: str, monkeypatch: pytest.MonkeyPatch):
    for workload in ("headstart-api", "headstart-worker"):
        given = environment(name, workload)
        assert set(given) <= VARIABLES | OF_OTHERS, set(given) - VARIABLES - OF_OTHERS
        for variable_name, value in given.items():
            monkeypatch.setenv(variable_name, value)
        load_settings({})  # raises for a wrong one


@every
def test_api_and_worker_agree_on_what_they_share(name: str):
    api, worker = (environment(name, f"headstart-{kind}") for kind in ("api", "worker"))
    for shared in ("HEADSTART_PARTITIONS", "HEADSTART_PREFIX"):
        assert api[shared] == worker[shared]
    assert api["HEADSTART_REDIS_URL"] == worker["HEADSTART_REDIS_URL"] == "secret"


@every
def test_a_pod_has_time_to_drain(name: str):
    for workload, _, spec in pods(name):
        if workload == "valkey":
            continue
        [container] = spec["containers"]
        pause = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        drain = float(environment(name, workload)["HEADSTART_DRAIN"])
        # And what `supervisor` and the closing of clients need.
        assert spec["terminationGracePeriodSeconds"] >= pause + drain + 5
        if workload == "headstart-api":
            assert pause >= 3, "clients have not heard of it"


@every
def test_what_is_mounted_is_there_and_what_a_variable_names_is_mounted(name: str):
    for workload, _, spec in pods(name):
        volumes = {volume["name"] for volume in spec["volumes"]}
        [container] = spec["containers"]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert set(mounts) == volumes, workload
        for item in container.get("env", ()):
            if item.get("value", "").startswith("/"):
                assert any(item["value"].startswith(f"{at}/") for at in mounts.values()), item


@every
def test_every_selector_selects_and_deployments_select_their_own_pods(name: str):
    labels = [metadata["labels"] for _, metadata, _ in pods(name)]
    for each in resources(name):
        what = f"{each['kind']} {each['metadata']['name']}"
        match each["kind"]:
            case "Service":
                selectors = [each["spec"]["selector"]]
            case "PodDisruptionBudget":
                selectors = [each["spec"]["selector"]["matchLabels"]]
            case "NetworkPolicy":
                selectors = [each["spec"]["podSelector"]["matchLabels"]]
            case "Deployment":
                spec = each["spec"]
                selectors = [spec["selector"]["matchLabels"]]
                own = spec["template"]["metadata"]["labels"]
                assert [label for label in labels if fits(selectors[0], label)] == [own], what
                selectors += [
                    spread["labelSelector"]["matchLabels"]
                    for spread in spec["template"]["spec"].get("topologySpreadConstraints", ())
                ]
            case _:
                continue
        for selector in selectors:
            assert any(fits(selector, label) for label in labels), f"{what}: {selector}"


@every
def test_services_lead_to_ports_that_their_pods_have(name: str):
    for service in of_kind(name, "Service"):
        for _, metadata, spec in pods(name):
            if fits(service["spec"]["selector"], metadata["labels"]):
                ports = {port["name"] for port in spec["containers"][0]["ports"]}
                wanted = {port["targetPort"] for port in service["spec"]["ports"]}
                assert wanted <= ports, service["metadata"]["name"]


@every
def test_rolling_updates_and_disruptions_leave_pods_in_service(name: str):
    budgets = {
        each["metadata"]["name"]: each["spec"] for each in of_kind(name, "PodDisruptionBudget")
    }
    for workload in ("headstart-api", "headstart-worker"):
        spec = named(name, "Deployment", workload)["spec"]
        assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
        assert spec["minReadySeconds"] >= 3
        assert budgets[workload]["maxUnavailable"] == 1
        keys = [
            each["topologyKey"] for each in spec["template"]["spec"]["topologySpreadConstraints"]
        ]
        assert keys == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]


@every
def test_what_an_autoscaler_sets_no_manifest_sets(name: str):
    scalers = (*of_kind(name, "HorizontalPodAutoscaler"), *of_kind(name, "ScaledObject"))
    for scaler in scalers:
        target = named(name, "Deployment", scaler["spec"]["scaleTargetRef"]["name"])
        assert "replicas" not in target["spec"]


def test_there_are_scaled_combinations():
    assert len(SCALED) >= 6


@pytest.mark.parametrize("name", SCALED)
def test_keda_counts_every_partitions_queue(name: str):
    scaled = next(
        each
        for each in of_kind(name, "ScaledObject")
        if each["metadata"]["name"] == "headstart-worker"
    )
    [authentication] = of_kind(name, "TriggerAuthentication")
    given = environment(name, "headstart-worker")
    partitions = int(given["HEADSTART_PARTITIONS"])
    installation = Installation(given["HEADSTART_PREFIX"])
    keys = [PartitionKeys(partition, installation) for partition in range(partitions)]
    statuses = (Status.PENDING, Status.IN_PROGRESS)
    wanted = {each.named(f"status:{status}") for each in keys for status in statuses}
    queues = [each for each in scaled["spec"]["triggers"] if each["type"] != "cron"]
    kinds = {each["type"] for each in queues}
    assert len(kinds) == 1
    assert kinds <= {"redis", "redis-sentinel", "redis-cluster"}
    lists = [each["metadata"]["listName"] for each in queues]
    own = [each for each in lists if ":pool:" not in each]
    assert set(own) == wanted
    assert len(own) == 2 * partitions
    for each in queues:
        assert each["authenticationRef"]["name"] == authentication["metadata"]["name"]
    names = [each["name"] for each in scaled["spec"]["triggers"]]
    assert len(set(names)) == len(names)
    # A replacement of a lost worker takes its runs over within two leases; and not before.
    lease = float(environment(name, "headstart-worker")["HEADSTART_LEASE"])
    assert scaled["spec"]["cooldownPeriod"] > 2 * lease


@pytest.mark.parametrize("name", [name for name in SCALED if "nights" in name])
def test_by_night_the_last_worker_goes_and_by_day_one_stays(name: str):
    [scaled] = of_kind(name, "ScaledObject")
    [day] = [each for each in scaled["spec"]["triggers"] if each["type"] == "cron"]
    assert scaled["spec"]["minReplicaCount"] == 0
    assert day["metadata"]["desiredReplicas"] == "2", "its value by night is 1"
    assert scaled["spec"]["advanced"]["scalingModifiers"]["formula"].endswith(" + day - 1")


def test_production_has_tls_tokens_and_a_policy_for_all_pods():
    given = environment("overlay-prod", "headstart-api")
    assert given["HEADSTART_TLS_CERT"].endswith("/tls.crt")
    assert given["HEADSTART_TOKENS"].endswith("/tokens")
    assert "HEADSTART_INSECURE" not in given
    policies = [each["spec"] for each in of_kind("overlay-prod", "NetworkPolicy")]
    for workload, metadata, _ in pods("overlay-prod"):
        mine = [
            each
            for each in policies
            if fits(each["podSelector"]["matchLabels"], metadata["labels"])
        ]
        assert {kind for each in mine for kind in each["policyTypes"]} == {"Ingress", "Egress"}, (
            workload
        )
    [monitor] = of_kind("overlay-prod", "ServiceMonitor")
    [endpoint] = monitor["spec"]["endpoints"]
    assert endpoint["authorization"]["credentials"]["name"] == "headstart-metrics-token"
    for service in ("headstart", "headstart-headless"):
        assert (
            named("overlay-prod", "Service", service)["spec"]["ports"][0]["appProtocol"] == "https"
        )


@pytest.mark.parametrize("name", [name for name in COMBINATIONS if name.endswith("-traced")])
def test_traced_pods_are_told_of_a_collector_that_their_policy_lets_them_reach(name: str):
    [policy] = [
        each["spec"]
        for each in of_kind(name, "NetworkPolicy")
        if each["metadata"]["name"] == "headstart"
    ]
    for workload, metadata, _ in pods(name):
        given = environment(name, workload)
        assert given["HEADSTART_TRACING"] == "true"
        collector = urlsplit(given["OTEL_EXPORTER_OTLP_ENDPOINT"])
        assert collector.hostname is not None
        namespace = collector.hostname.partition(".")[2]
        selector = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
        assert fits(policy["podSelector"]["matchLabels"], metadata["labels"])
        assert {
            "to": [{"namespaceSelector": selector}],
            "ports": [{"port": collector.port, "protocol": "TCP"}],
        } in policy["egress"]


@every
def test_pods_work_in_a_cluster_of_ipv6_alone_as_in_one_of_ipv4(name: str):
    for workload, _, _ in pods(name):
        given = environment(name, workload)
        if any(each in VARIABLES for each in given):
            assert given["HEADSTART_HOST"] == "::", "the only host that means both families"
    for where, container in containers(name):
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            # Without a host, a probe goes to the pod's address, of whichever family.
            assert "host" not in container.get(kind, {}).get("httpGet", {}), where
    for service in of_kind(name, "Service"):
        assert not {"ipFamilies", "clusterIPs"} & service["spec"].keys()
    for policy in of_kind(name, "NetworkPolicy"):
        rules = [*policy["spec"].get("ingress", ()), *policy["spec"].get("egress", ())]
        for rule in rules:
            peers = [*rule.get("from", ()), *rule.get("to", ())]
            blocks = [peer["ipBlock"] for peer in peers if "ipBlock" in peer]
            wide = {block["cidr"]: block.get("except", []) for block in blocks}
            assert wide.keys() in (set(), {"0.0.0.0/0", "::/0"}), policy["metadata"]["name"]
            for version, cidr in ((4, "0.0.0.0/0"), (6, "::/0")):
                kept_out = [ip_network(each) for each in wide.get(cidr, ())]
                assert all(each.version == version and each.is_private for each in kept_out)
    others = [each for each in resources(name) if each["kind"] != "NetworkPolicy"]
    literals = re.findall(r"\b(?:\d{1,3}\.){3}\d{1,3}\b", yaml.safe_dump_all(others))
    assert literals == []


def test_the_image_listens_on_both_families_and_asks_itself_by_name():
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    assert "HEADSTART_HOST=::" in dockerfile
    assert re.findall(r"HTTPConnection\('([^']+)'", dockerfile) == ["localhost"]


def test_no_component_but_networkpolicy_makes_policies():
    # A policy isolates whom it selects, and the rules that would be needed then are there alone.
    for name in COMBINATIONS:
        start, components = COMBINATIONS[name]
        if start == "base" and "networkpolicy" not in components:
            assert not of_kind(name, "NetworkPolicy"), name


def test_the_certificate_has_every_name_that_a_client_may_use():
    name = "overlay-prod"
    [certificate] = of_kind(name, "Certificate")
    namespace = certificate["metadata"]["namespace"]
    services = [
        service["metadata"]["name"]
        for service in of_kind(name, "Service")
        if "grpc" in {port["name"] for port in service["spec"]["ports"]}
    ]
    assert len(services) == 2
    suffixes = (*("", f".{namespace}"), f".{namespace}.svc", f".{namespace}.svc.cluster.local")
    wanted = {service + suffix for service in services for suffix in suffixes} | {"localhost"}
    assert set(certificate["spec"]["dnsNames"]) == wanted


def test_the_monitor_finds_the_pods_of_both_kinds():
    name = "overlay-prod"
    [monitor] = of_kind(name, "ServiceMonitor")
    wanted = monitor["spec"]["selector"]["matchLabels"]
    [service] = [
        each for each in of_kind(name, "Service") if fits(wanted, each["metadata"]["labels"])
    ]
    assert monitor["spec"]["endpoints"][0]["port"] in {p["name"] for p in service["spec"]["ports"]}
    found = {
        workload
        for workload, metadata, _ in pods(name)
        if fits(service["spec"]["selector"], metadata["labels"])
    }
    assert found == {"headstart-api", "headstart-worker"}


def test_without_tls_the_api_speaks_plain_http2():
    for service in ("headstart", "headstart-headless"):
        [port] = named("overlay-dev", "Service", service)["spec"]["ports"]
        assert port["appProtocol"] == "kubernetes.io/h2c"
    assert named("overlay-dev", "Service", "headstart-headless")["spec"]["clusterIP"] == "None"


def test_no_manifest_holds_a_secret():
    for name in COMBINATIONS:
        for secret in of_kind(name, "Secret"):
            assert name == "overlay-dev"
            assert list(secret["data"]) == ["url"]
    text = "".join(path.read_text() for path in KUBERNETES.rglob("*.yaml"))
    assert not re.search(r"hst_|sk-ant|PRIVATE KEY", text)
