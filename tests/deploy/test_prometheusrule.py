"""The operator's rules are those of deploy/prometheus, which promtool has tested."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import prometheusrule
from deploy.manifests import render
from deploy.prometheusrule import RESOURCE, RULES, groups, main, resource

WRITTEN = yaml.safe_load(RESOURCE.read_text())


def pages(of: list[dict[str, Any]]) -> list[str]:
    rules = [rule for group in of for rule in group["rules"]]
    return [rule["annotations"]["runbook_url"] for rule in rules if "alert" in rule]


def test_the_written_rules_are_current():
    prefix = pages(WRITTEN["spec"]["groups"])[0].partition("docs/")[0]
    assert RESOURCE.read_text() == resource(prefix), "run `make prometheusrule`"


def test_they_are_the_rules_of_the_files_and_nothing_else():
    files = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    assert {path.name for path in RULES} == {
        path.name for path in RULES[0].parent.glob("*.yaml") if not path.stem.endswith("_test")
    }
    assert yaml.safe_load(resource())["spec"] == {"groups": files}


def test_kustomize_leaves_them_as_they_are():
    rendered = yaml.safe_load_all(render("base-prometheusrule"))
    [rule] = [each for each in rendered if each["kind"] == "PrometheusRule"]
    assert rule["spec"] == WRITTEN["spec"]
    assert rule["metadata"]["namespace"] == "headstart"


def test_a_prefix_stands_before_the_page_of_every_alert(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(prometheusrule, "ROOT", tmp_path)
    monkeypatch.setattr(prometheusrule, "RESOURCE", tmp_path / "rule.yaml")
    main(["--runbooks", "https://host.test/main/"])
    told = yaml.safe_load((tmp_path / "rule.yaml").read_text())["spec"]["groups"]
    assert pages(told) == [f"https://host.test/main/{page}" for page in pages(groups())]
    assert len(pages(told)) > 20
