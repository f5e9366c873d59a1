"""Render every overlay and combination of components, and check all of deploy/: `make manifests`.

kubectl renders; kubernetes-validate knows the fields of several Kubernetes versions, strictly;
checkov and hadolint know rules of security and of good style, compose-spec what Compose reads.
Nothing needs a cluster or a network.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from .pins import ROOT

KUBERNETES = ROOT / "deploy" / "kubernetes"
COMPOSE = (ROOT / "deploy" / "compose.yaml", ROOT / "deploy" / "compose.secure.yaml")
VERSIONS = ("1.30", "1.34", "1.37")
"""Kubernetes versions that the manifests are for. 1.30 is the first with `preStop: sleep` on."""
OVERLAYS = ("dev", "prod")
COMBINATIONS: Mapping[str, tuple[str, Sequence[str]]] = {
    **{f"overlay-{name}": (f"overlays/{name}", ()) for name in OVERLAYS},
    "base": ("base", ()),
    **{
        f"base-{path.name}": ("base", (path.name,))
        for path in sorted((KUBERNETES / "components").iterdir())
        if path.name not in {"keda-nights", "hpa-waiters", "pool-gpu-keda"}  # which change others
    },
    "base-waiters": ("base", ("hpa", "servicemonitor", "hpa-waiters")),
    "base-keda-nights": ("base", ("keda", "keda-nights")),
    "base-observed": ("base", ("servicemonitor", "prometheusrule", "tokens")),
    "base-pools": ("base", ("keda", "pool-gpu", "pool-gpu-keda", "networkpolicy")),
    "base-traced": ("base", ("networkpolicy", "otlp")),
    "base-sentinel": ("base", ("networkpolicy", "keda", "redis-sentinel")),
    "base-cluster": ("base", ("networkpolicy", "keda", "redis-cluster")),
    "prod-nights": ("overlays/prod", ("keda-nights",)),
    "prod-sentinel": ("overlays/prod", ("redis-sentinel",)),
    "prod-cluster": ("overlays/prod", ("redis-cluster",)),
    "prod-waiters": ("overlays/prod", ("hpa-waiters",)),
    "prod-traced": ("overlays/prod", ("otlp",)),
}
"""What is rendered and checked: what a kustomization starts from, and the components it adds."""
_CUSTOM = re.compile(
    r"WARN .*Couldn't find schema for kind "
    r"(Certificate|ScaledObject|TriggerAuthentication|ServiceMonitor|PrometheusRule) with .*"
)
"""Resources of operators, whose fields tests/deploy checks as far as they are used here."""

_LOOK = """
import sys
from compose_spec import PyCompose
PyCompose.from_json(sys.stdin.read()).validate()
"""


def render(name: str) -> str:
    """One combination as YAML. Raises CalledProcessError, after showing what went wrong."""
    return kustomized(*COMBINATIONS[name])


def kustomized(start: str, components: Sequence[str] = (), **more: Any) -> str:
    """What an overlay of `start` with these components, and with `more` fields, is as YAML.

    Raises CalledProcessError, after showing what went wrong.
    """
    with tempfile.TemporaryDirectory() as directory:
        here = Path(directory).resolve()

        def path(to: str) -> str:
            return os.path.relpath((KUBERNETES / to).resolve(), here)

        fields = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            **({"namespace": "headstart"} if start == "base" else {}),
            "resources": [path(start)],
            "components": [path(f"components/{component}") for component in components],
            **more,
        }
        (here / "kustomization.yaml").write_text(yaml.safe_dump(fields))
        kubectl = Path(sys.executable).with_name("kubectl")
        command = [str(kubectl), "kustomize", str(here)]
        return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout  # noqa: S603


def compose(path: Path) -> dict[str, Any]:
    """A compose file as Compose reads it without any variable; those that must be set are `x`."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", path.read_text())
    text = re.sub(r"\$\{\w+:\?[^}]*\}", "/x", text)
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def main() -> int:
    """Render all into a directory and let the tools look; the exit code tells what they say."""
    parser = argparse.ArgumentParser(prog="python -m deploy.manifests", description=__doc__)
    parser.add_argument("--tools", type=Path, required=True, help="bin directory of the checkers")
    tools: Path = parser.parse_args().tools
    failed = 0
    with tempfile.TemporaryDirectory() as directory:
        files = []
        for name in COMBINATIONS:
            file = Path(directory) / f"{name}.yaml"
            file.write_text(render(name))
            files.append(str(file))
        print(f"manifests: {len(files)} combinations rendered", flush=True)
        for version in VERSIONS:
            command = [tools / "kubernetes-validate", "--strict", "-k", version, "--quiet", *files]
            said = subprocess.run(  # noqa: S603  # all ours
                command, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            told = [line for line in said.stdout.splitlines() if not _CUSTOM.fullmatch(line)]
            failed |= said.returncode or bool(told)
            print(
                *told,
                f"manifests: Kubernetes {version}, code {said.returncode}",
                sep="\n",
                flush=True,
            )
        rules = ROOT / "deploy" / "checkov.yaml"
        command = [tools / "checkov", "--directory", directory, "--framework", "kubernetes"]
        command += ["--skip-download", "--quiet", "--compact", "--config-file", rules]
        failed |= subprocess.run(command, check=False).returncode  # noqa: S603
        print("manifests: checkov has looked", flush=True)
    for path in COMPOSE:
        command = [tools / "python", "-c", _LOOK]
        text = json.dumps(compose(path))
        failed |= subprocess.run(command, check=False, input=text, text=True).returncode  # noqa: S603
        print(f"manifests: compose-spec has looked at {path.name}", flush=True)
    failed |= subprocess.run(  # noqa: S603
        [tools / "hadolint", ROOT / "deploy" / "Dockerfile"], check=False
    ).returncode
    print("manifests: hadolint has looked", flush=True)
    print("manifests: something is wrong" if failed else "manifests: all in order")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
