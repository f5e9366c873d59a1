"""Write the rules of deploy/prometheus as a PrometheusRule: `make prometheusrule`.

kustomize can read neither file as a part of a resource. `--runbooks` is what stands before each
`runbook_url`, which is a path in this repository: where readers of an alert find it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import yaml

from .pins import ROOT

RULES = tuple(ROOT / "deploy" / "prometheus" / f"{name}.yaml" for name in ("recording", "alerts"))
RESOURCE = ROOT / "deploy" / "kubernetes" / "components" / "prometheusrule" / "prometheusrule.yaml"
_HEADER = """\
# Made by `make prometheusrule` from deploy/prometheus, which says why each rule is as it is.
"""


class _Dumper(yaml.SafeDumper):
    """Shows expressions of several lines as such."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def groups(runbooks: str = "") -> list[dict[str, Any]]:
    """The groups of both files, with `runbooks` in front of each alert's page."""
    found: list[dict[str, Any]] = []
    for path in RULES:
        found += yaml.safe_load(path.read_text())["groups"]
    for group in found:
        for rule in group["rules"]:
            if "runbook_url" in rule.get("annotations", {}):
                rule["annotations"]["runbook_url"] = runbooks + rule["annotations"]["runbook_url"]
    return found


def resource(runbooks: str = "") -> str:
    """The PrometheusRule as YAML."""
    labels = {"app.kubernetes.io/name": "headstart"}
    return _HEADER + yaml.dump(
        {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PrometheusRule",
            "metadata": {"name": "headstart", "labels": labels},
            "spec": {"groups": groups(runbooks)},
        },
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=1000,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Write it where components/prometheusrule has it."""
    parser = argparse.ArgumentParser(prog="python -m deploy.prometheusrule", description=__doc__)
    parser.add_argument(
        "--runbooks",
        default="",
        metavar="URL",
        help="what stands before each runbook_url: https://HOST/headstart/blob/main/",
    )
    options = parser.parse_args(arguments)
    RESOURCE.write_text(resource(options.runbooks))
    print(f"wrote {RESOURCE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
