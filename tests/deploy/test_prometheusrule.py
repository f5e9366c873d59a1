"""The operator's rules are those of deploy/prometheus, which promtool has tested."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.manifests import render
from deploy.pins import ROOT
from deploy.prometheusrule import PROMETHEUS, RESOURCE, RULES, base, linked, main, resource

WRITTEN = yaml.safe_load(RESOURCE.read_text())
TEXTS = [path.read_text() for path in RULES]
PROJECT = (ROOT / "pyproject.toml").read_text()


def pages(of: list[dict[str, Any]]) -> list[str]:
    rules = [rule for group in of for rule in group["rules"]]
    return [rule["annotations"]["runbook_url"] for rule in rules if "alert" in rule]


def test_the_written_rules_are_current():
    assert RESOURCE.read_text() == resource(TEXTS), "run `make prometheusrule`"
    for path in PROMETHEUS.glob("*.yaml"):
        text = path.read_text()
        assert text == linked(text, base(PROJECT, TEXTS[1])), "run `make prometheusrule`"


def test_they_are_the_rules_of_the_files_and_nothing_else():
    files = [group for text in TEXTS for group in yaml.safe_load(text)["groups"]]
    assert {path.name for path in RULES} == {
        path.name for path in PROMETHEUS.glob("*.yaml") if not path.stem.endswith("_test")
    }
    assert WRITTEN["spec"] == {"groups": files}


@pytest.mark.parametrize("name", ["base-prometheusrule", "overlay-prod"])
def test_kustomize_leaves_them_as_they_are(name: str):
    rendered = yaml.safe_load_all(render(name))
    [rule] = [each for each in rendered if each["kind"] == "PrometheusRule"]
    assert rule["spec"] == WRITTEN["spec"]
    assert rule["metadata"]["namespace"] == "headstart"


def test_the_repository_of_the_project_is_where_runbooks_are_unless_the_rules_say():
    assert base("[project]", 'runbook_url: "https://kept.test/docs/operations.md#a"') == (
        "https://kept.test/"
    )
    urls = '[project.urls]\nRepository = "https://host.test/headstart"'
    assert base(f"[project]\n{urls}", TEXTS[1]) == "https://host.test/headstart/blob/main/"


def test_a_given_address_stands_before_the_page_of_every_alert_in_all_files(tmp_path: Path):
    for directory in (PROMETHEUS, RESOURCE.parent):
        shutil.copytree(directory, tmp_path / directory.relative_to(ROOT))
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    main(["--runbooks", "https://host.test/main"], tmp_path)
    told = yaml.safe_load((tmp_path / RESOURCE.relative_to(ROOT)).read_text())["spec"]["groups"]
    ends = [page[page.index("docs/") :] for page in pages(WRITTEN["spec"]["groups"])]
    assert pages(told) == [f"https://host.test/main/{end}" for end in ends]
    assert len(ends) > 20
    for path in (tmp_path / PROMETHEUS.relative_to(ROOT)).glob("*_test.yaml"):
        text = path.read_text()
        assert text.count("https://host.test/main/docs/") == text.count("runbook_url")
    before = (tmp_path / RESOURCE.relative_to(ROOT)).read_text()
    main([], tmp_path)
    assert (tmp_path / RESOURCE.relative_to(ROOT)).read_text() == before


@pytest.mark.parametrize("wrong", ["docs/", "host.test/main", "ftp://host.test/"])
def test_an_address_that_no_browser_opens_is_refused(
    wrong: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit):
        main(["--runbooks", wrong])
    assert "must be https://HOST/PATH/" in capsys.readouterr().err
