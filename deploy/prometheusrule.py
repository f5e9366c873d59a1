"""Write the rules of deploy/prometheus as a PrometheusRule: `make prometheusrule`.

kustomize can read neither file as a part of a resource. Each `runbook_url` begins with the address
of this repository. `--runbooks` changes it in all files. The default is `Repository` of
`[project.urls]` in pyproject.toml, or else what alerts.yaml has.
"""

from __future__ import annotations

import argparse
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import yaml

from .pins import ROOT

PROMETHEUS: Final = ROOT / "deploy" / "prometheus"
RULES = tuple(PROMETHEUS / f"{name}.yaml" for name in ("recording", "alerts"))
RESOURCE = ROOT / "deploy" / "kubernetes" / "components" / "prometheusrule" / "prometheusrule.yaml"
_PAGE: Final = "docs/operations.md#"
_LINK: Final = re.compile(rf'(runbook_url: "?)([^"\s]*?)(?={re.escape(_PAGE)})')
_HEADER = """\
# Made by `make prometheusrule` from deploy/prometheus, which says why each rule is as it is.
"""


class _Dumper(yaml.SafeDumper):
    """Shows expressions of several lines as such."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def base(project: str, rules: str) -> str:
    """Return what stands before the page of each alert, by pyproject.toml and alerts.yaml."""
    urls = tomllib.loads(project)["project"].get("urls", {})
    if repository := urls.get("Repository"):
        return f"{repository.rstrip('/')}/blob/main/"
    found = _LINK.search(rules)
    return found[2] if found else ""


def linked(text: str, runbooks: str) -> str:
    """Return the text of rules, or of their tests, with `runbooks` before each alert's page."""
    return _LINK.sub(lambda found: found[1] + runbooks, text)


def resource(texts: Sequence[str]) -> str:
    """Return the PrometheusRule of these files of rules as YAML."""
    groups: list[dict[str, Any]] = []
    for text in texts:
        groups += yaml.safe_load(text)["groups"]
    labels = {"app.kubernetes.io/name": "headstart"}
    return _HEADER + yaml.dump(
        {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PrometheusRule",
            "metadata": {"name": "headstart", "labels": labels},
            "spec": {"groups": groups},
        },
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=1000,
    )


def _address(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("https", "http") or not parts.netloc:
        raise argparse.ArgumentTypeError(f"{text!r}: must be https://HOST/PATH/")
    return text if text.endswith("/") else f"{text}/"


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> None:
    """Write the links in deploy/prometheus, and the resource of components/prometheusrule."""
    parser = argparse.ArgumentParser(prog="python -m deploy.prometheusrule", description=__doc__)
    parser.add_argument(
        "--runbooks",
        type=_address,
        metavar="URL",
        help="where this repository is read: https://HOST/headstart/blob/main/",
    )
    runbooks = parser.parse_args(arguments).runbooks
    alerts = (root / RULES[1].relative_to(ROOT)).read_text()
    if runbooks is None:
        runbooks = base((root / "pyproject.toml").read_text(), alerts)
    for path in sorted((root / PROMETHEUS.relative_to(ROOT)).glob("*.yaml")):
        path.write_text(linked(path.read_text(), runbooks))
    target = RESOURCE.relative_to(ROOT)
    rules = [(root / path.relative_to(ROOT)).read_text() for path in RULES]
    (root / target).write_text(resource(rules))
    print(f"wrote {target}, with runbooks at {runbooks}")


if __name__ == "__main__":
    main()
