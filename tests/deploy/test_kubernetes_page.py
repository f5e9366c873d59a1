"""docs/kubernetes.md names nothing that does not exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.manifests import kustomized, render
from headstart_service.commands.cli import main
from headstart_service.config.settings import Settings, variable

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "kubernetes.md"
TEXT = PAGE.read_text()
COMPONENTS = {path.name for path in (ROOT / "deploy/kubernetes/components").iterdir()}
_RESOURCE = re.compile(r"\b(deployment|service)/(headstart[\w-]*)")


def test_every_link_leads_somewhere():
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", TEXT):
        if not target.startswith("https://"):
            assert (PAGE.parent / target).exists(), target


def test_every_path_exists():
    paths = set(re.findall(r"\bdeploy/[\w./-]*\w", TEXT))
    assert len(paths) > 4
    for path in paths:
        assert (ROOT / path).exists(), path
    for overlay in re.findall(r"`overlays/(\w+)`", TEXT):
        assert (ROOT / "deploy/kubernetes/overlays" / overlay).is_dir()


def test_every_component_is_told_and_exists():
    section = TEXT.split("| component |")[1].split("\n\n")[0]
    told = {
        name
        for row in section.splitlines()[2:]
        for name in re.findall(r"`([a-z-]+)`", row.split("|")[1])
    }
    assert told == COMPONENTS
    assert set(re.findall(r"`components/([\w-]+)`", TEXT)) <= COMPONENTS


def test_every_make_target_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    fenced = "".join(re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL))
    inline = "\n".join(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)))
    named = set(re.findall(r"\bmake ([a-z-]+)", fenced + inline))
    assert {"image", "image-test", "manifests"} <= named
    assert named <= targets


def test_every_setting_exists():
    settings = {variable(name) for name in Settings.model_fields} | {"HEADSTART_ADDRESS"}
    assert set(re.findall(r"\bHEADSTART_[A-Z_]+", TEXT)) <= settings


@pytest.mark.parametrize(
    "command", sorted(set(re.findall(r"headstart (start|get|token|vocabulary)\b", TEXT)))
)
def test_every_command_exists(command: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"headstart {command}" in capsys.readouterr().out


def pasted(part: str) -> list[dict[str, Any]]:
    """What `overlays/prod` becomes with the lines that the page has under what begins so."""
    lines = yaml.safe_load(TEXT.split(part)[1].split("```yaml\n")[1].split("```")[0])
    components = [Path(path).name for path in lines.pop("components", ())]
    return list(yaml.safe_load_all(kustomized("overlays/prod", components, **lines)))


def one(rendered: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    [found] = [e for e in rendered if (e["kind"], e["metadata"]["name"]) == (kind, name)]
    return found


def test_the_patch_for_another_collector_reaches_the_right_rule():
    rendered = pasted("**Another collector**")
    [data] = [each["data"] for each in rendered if each["kind"] == "ConfigMap"]
    assert data["HEADSTART_TRACING"] == "true"
    assert data["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector.observability:4317"
    rule = one(rendered, "NetworkPolicy", "headstart")["spec"]["egress"][-1]
    assert rule["ports"] == [{"port": 4317, "protocol": "TCP"}]
    [to] = rule["to"]
    assert to["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": "observability"
    }


def test_the_limits_reach_the_workers_of_every_pool_and_no_api_pod():
    lines = yaml.safe_load(TEXT.split("**Limits**")[1].split("```yaml\n")[1].split("```")[0])
    [made] = lines["configMapGenerator"]
    made["literals"] = [f"{name}=" for name in made.pop("files")]  # the operator's own
    rendered = list(yaml.safe_load_all(kustomized("overlays/prod", ["pool-gpu"], **lines)))
    limits = one(rendered, "ConfigMap", "headstart-limits")
    assert limits["metadata"]["namespace"] == "headstart"
    found = {}
    for each in (each for each in rendered if each["kind"] == "Deployment"):
        pod = each["spec"]["template"]["spec"]
        env = {item["name"]: item.get("value") for item in pod["containers"][0]["env"]}
        mounts = {m["name"]: m["mountPath"] for m in pod["containers"][0]["volumeMounts"]}
        found[each["metadata"]["name"]] = env.get("HEADSTART_LIMITS"), mounts.get("limits")
    path = "/etc/headstart/limits.toml", "/etc/headstart"
    assert found == {
        "headstart-api": (None, None),
        "headstart-worker": path,
        "headstart-worker-gpu": path,
    }


def test_the_certificate_of_another_namespace_has_the_names_of_the_first():
    [usual] = [e for e in yaml.safe_load_all(render("overlay-prod")) if e["kind"] == "Certificate"]
    rendered = pasted("**Another namespace**")
    assert {each["metadata"].get("namespace", "games") for each in rendered} == {"games"}
    one(rendered, "Namespace", "games")
    other = one(rendered, "Certificate", "headstart")
    assert other["spec"]["dnsNames"] == [
        re.sub(r"\.headstart\b", ".games", name) for name in usual["spec"]["dnsNames"]
    ]


def test_the_label_that_the_operators_prometheus_selects_is_on_the_monitor_and_the_rules():
    rendered = pasted("**Prometheus** finds")
    for kind in ("ServiceMonitor", "PrometheusRule"):
        labels = one(rendered, kind, "headstart")["metadata"]["labels"]
        assert labels["release"] == "kube-prometheus-stack"
        assert labels["app.kubernetes.io/name"] == "headstart"


@pytest.mark.parametrize("name", ["overlay-dev", "overlay-prod"])
def test_an_upgrade_begins_with_the_worker_and_all_that_it_reads_and_without_the_api(name: str):
    [(label, value)] = re.findall(r"kubectl apply -k \S+ -l '([\w./]+)!=(\w+)'", TEXT)
    there = list(yaml.safe_load_all(render(name)))
    first = [each for each in there if each["metadata"].get("labels", {}).get(label) != value]
    assert not [each for each in first if each["metadata"]["name"].startswith("headstart-api")]
    spec = one(first, "Deployment", "headstart-worker")["spec"]["template"]["spec"]
    one(first, "ServiceAccount", spec["serviceAccountName"])
    [container] = spec["containers"]
    for source in container["envFrom"]:
        one(first, "ConfigMap", source["configMapRef"]["name"])
    secrets = {each["metadata"]["name"] for each in there if each["kind"] == "Secret"}
    assert secrets <= {each["metadata"]["name"] for each in first if each["kind"] == "Secret"}
    # And what is left out is the API's.
    left = [each for each in there if each not in first]
    assert {("Deployment", "headstart-api")} <= {
        (each["kind"], each["metadata"]["name"]) for each in left
    }
    assert not [each for each in left if "worker" in each["metadata"]["name"]]


def test_what_kubectl_is_told_to_look_at_is_there():
    for namespace, name in (("headstart-dev", "overlay-dev"), ("headstart", "overlay-prod")):
        there = {
            (each["kind"].lower(), each["metadata"]["name"])
            for each in yaml.safe_load_all(render(name))
            if each["metadata"].get("namespace") == namespace
        }
        lines = [line for line in TEXT.splitlines() if f"kubectl -n {namespace} " in line]
        found = {item for line in lines for item in _RESOURCE.findall(line)}
        assert found
        assert found <= there


def test_every_secret_that_a_pod_needs_is_reported():
    wanted = set()
    for each in yaml.safe_load_all(render("overlay-prod")):
        wanted |= set(
            re.findall(
                r"(?:secretName|name): (headstart-(?:redis|tls|tokens|anthropic|openai|metrics-token))\b",
                yaml.safe_dump(each),
            )
        )
    section = TEXT.split("| Secret |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `(headstart-[\w-]+)`", section, re.MULTILINE)) == wanted
