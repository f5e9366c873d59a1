"""Dashboard, rules, pages and code name the same things."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.dashboard import dashboard
from headstart_service.telemetry.metrics.instruments import Description
from tests.support.scrape import documented

ROOT = Path(__file__).parents[3]
DASHBOARD = json.loads((ROOT / "deploy/grafana/dashboard.json").read_text())
ALERTS = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text())["groups"][0]["rules"]
RECORDED = yaml.safe_load((ROOT / "deploy/prometheus/recording.yaml").read_text())["groups"][0]
PAGE = (ROOT / "docs" / "operations.md").read_text()


def named(text: str) -> set[str]:
    """The metrics that an expression names, without the endings of histograms."""
    found = re.findall(r"\b(?:headstart_|process_)[a-z_]+|\bheadstart:[a-z0-9_:]+", text)
    return {re.sub("_(bucket|count|sum)$", "", name) for name in found}


def test_all_that_is_asked_for_exists() -> None:
    exists = set(documented()) | {rule["record"] for rule in RECORDED["rules"]}
    texts = [rule["expr"] for rule in (*ALERTS, *RECORDED["rules"])]
    texts += [t["expr"] for panel in DASHBOARD["panels"] for t in panel.get("targets", ())]
    assert len(texts) > 80
    for text in texts:
        assert named(text)
        assert named(text) <= exists, text


def test_every_metric_of_ours_is_looked_at_somewhere() -> None:
    texts = [rule["expr"] for rule in (*ALERTS, *RECORDED["rules"])]
    texts += [t["expr"] for panel in DASHBOARD["panels"] for t in panel.get("targets", ())]
    looked_at = {name for text in texts for name in named(text)}
    unseen = {name for name in documented() if name.startswith("headstart_")} - looked_at
    assert unseen == set()


def test_every_alert_has_its_runbook_and_all_that_it_must() -> None:
    assert len(ALERTS) > 20
    headings = re.findall(r"^### (\w+)$", PAGE, re.MULTILINE)
    names = [alert["alert"] for alert in ALERTS]
    assert [h for h in headings if h.startswith("Headstart")] == names
    bases = set()
    for alert in ALERTS:
        name, told = alert["alert"], alert["annotations"]
        assert alert["labels"]["severity"] in ("critical", "warning")
        assert told["summary"]
        assert told["description"].endswith(".")
        base, page = told["runbook_url"].split("docs/")
        assert page == f"operations.md#{name.lower()}"
        bases.add(base)
        part = PAGE.split(f"### {name}\n")[1].split("\n### ")[0]
        assert all(f"- **{word}.** " in part for word in ("Cause", "Check", "Fix")), name
    [base] = bases
    assert re.fullmatch(r"https?://[^/]+/\S*/", base), "a link of a notification is absolute"


def test_every_alert_is_tested_firing_and_quiet() -> None:
    tests = yaml.safe_load((ROOT / "deploy/prometheus/alerts_test.yaml").read_text())["tests"]
    fires, quiet = set(), set()
    for test in tests:
        [case] = test["alert_rule_test"]
        (fires if case["exp_alerts"] else quiet).add(case["alertname"])
    assert fires == quiet == {alert["alert"] for alert in ALERTS}


AGGREGATION = re.compile(r"\b(?:sum|max|min|count|group|avg)\b(?: by \(([^)]*)\))?(?= ?\()")
MATCHING = re.compile(r"\bon \(([^)]*)\)")


def apart(expression: str) -> bool:
    """Whether an expression keeps the installations of one Prometheus apart."""
    return (
        all("namespace" in found for found in AGGREGATION.findall(expression))
        and all("namespace" in found for found in MATCHING.findall(expression))
        and not re.search(r"\babsent\(|\bvector\(|\bignoring\b|\bwithout\b", expression)
    )


def test_no_rule_mixes_two_installations() -> None:
    rules = (*ALERTS, *RECORDED["rules"])
    assert [rule for rule in rules if not apart(rule["expr"])] == []
    tests = yaml.safe_load((ROOT / "deploy/prometheus/installations_test.yaml").read_text())[
        "tests"
    ]
    tested = {case["alertname"] for test in tests for case in test["alert_rule_test"]}
    # What neither aggregates nor reads a recorded value is of one process.
    mixing = re.compile(rf"{AGGREGATION.pattern}|headstart:")
    assert tested >= {alert["alert"] for alert in ALERTS if mixing.search(alert["expr"])}
    assert all("$labels.namespace" in alert["annotations"]["summary"] for alert in ALERTS)


def test_no_metric_of_ours_has_the_label_of_the_installation() -> None:
    assert [name for name, row in documented().items() if "namespace" in row.labels] == []


def test_the_dashboard_shows_the_chosen_installations_apart() -> None:
    variables = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
    chosen = variables["namespace"]
    assert chosen["multi"]
    assert (chosen["includeAll"], chosen["allValue"]) == (True, ".*")
    assert 'namespace=~"$namespace"' in variables["pipeline"]["definition"]
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            query = target["expr"]
            series = re.findall(r"\b(?:headstart|process)[_:][a-z0-9_:]+", query)
            assert query.count('{namespace=~"$namespace"') == len(series), query
            assert apart(query), query
            assert target["legendFormat"].startswith("{{namespace}}"), panel["title"]


def test_the_dashboard_can_be_imported_anywhere() -> None:
    assert DASHBOARD["schemaVersion"] >= 39
    [source, *_] = DASHBOARD["templating"]["list"]
    assert (source["name"], source["type"], source["query"]) == (
        "datasource",
        "datasource",
        "prometheus",
    )
    panels: list[dict[str, Any]] = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
        if panel["type"] != "row":
            assert panel["description"]
            assert {t["datasource"]["uid"] for t in panel["targets"]} == {"${datasource}"}
    rows = [panel["title"] for panel in panels if panel["type"] == "row"]
    assert rows == [
        *("What users see", "Runs", "Steps", "Queue and workers", "Store"),
        *("Language model and embeddings", "Processes", "Other metrics"),
    ]


def test_a_metric_that_no_panel_names_gets_one_of_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {"cups_total": "counter", "cup_size_seconds": "histogram", "cups": "gauge"}
    new = {
        f"headstart_{name}": (Description(f"headstart_{name}", kind, ("pot",), "Cups."), ("api",))
        for name, kind in kinds.items()
    }
    monkeypatch.setattr("deploy.dashboard.registered", lambda: new)
    text = json.dumps(DASHBOARD)
    board = json.loads(dashboard(dashboard(text)))
    *_, row, counter, histogram, gauge = board["panels"]
    assert (row["title"], row["type"]) == ("Other metrics", "row")
    assert [panel["targets"][0]["expr"] for panel in (counter, histogram, gauge)] == [
        (
            "sum by (namespace, instance, pot) "
            '(rate(headstart_cups_total{namespace=~"$namespace"}[$__rate_interval]))'
        ),
        (
            "histogram_quantile(0.99, sum by (le, namespace, instance, pot) "
            '(rate(headstart_cup_size_seconds_bucket{namespace=~"$namespace"}[$__rate_interval])))'
        ),
        'headstart_cups{namespace=~"$namespace"}',
    ]
    assert {panel["gridPos"]["y"] for panel in (counter, histogram, gauge)} == {
        row["gridPos"]["y"] + 1
    }
    assert len(board["panels"]) == len([p for p in DASHBOARD["panels"] if p["id"] < 1000]) + 4
