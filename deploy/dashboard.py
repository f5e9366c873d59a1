"""Writes the dashboard's last row: a panel for each metric that no panel and no rule names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from headstart_service.telemetry.metrics.instruments import PREFIX, Description

from .metrics_page import registered
from .pins import ROOT
from .prometheusrule import RULES

PATH = ROOT / "deploy" / "grafana" / "dashboard.json"
ROW: Final = "Other metrics"
_FIRST_ID: Final = 1000
"""Panels of this id and higher are generated."""
_HEIGHT, _WIDTH, _COLUMNS = 8, 8, 3
_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_SHOWN: Final = '{namespace=~"$namespace"}'
"""Selects the installations that the dashboard's reader has chosen."""


def dashboard(text: str) -> str:
    """Return the dashboard's JSON with its generated panels."""
    board = json.loads(text)
    panels = [panel for panel in board["panels"] if panel["id"] < _FIRST_ID]
    named = json.dumps(panels) + "".join(path.read_text() for path in RULES)
    known = set(re.findall(rf"{PREFIX}\w+", named))
    rest = [metric for metric, _ in registered().values() if _is_new(metric, known)]
    top = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    board["panels"] = [*panels, *_panels(rest, top)]
    return json.dumps(board, indent=2) + "\n"


def _is_new(metric: Description, known: set[str]) -> bool:
    series = {metric.name, *(f"{metric.name}_{end}" for end in ("bucket", "count", "sum"))}
    return metric.name.startswith(PREFIX) and not series & known


def _panels(metrics: list[Description], top: int) -> Iterator[dict[str, Any]]:
    if metrics:
        yield {
            "type": "row",
            "id": _FIRST_ID,
            "title": ROW,
            "collapsed": False,
            "gridPos": {"h": 1, "w": 24, "x": 0, "y": top},
            "panels": [],
        }
    for place, metric in enumerate(metrics):
        line, column = divmod(place, _COLUMNS)
        position = {"x": column * _WIDTH, "y": top + 1 + line * _HEIGHT}
        yield _panel(metric, _FIRST_ID + 1 + place, {"h": _HEIGHT, "w": _WIDTH, **position})


def _panel(metric: Description, number: int, position: dict[str, int]) -> dict[str, Any]:
    labels = ("namespace", "instance", *metric.labels)
    match metric.kind:
        case "counter":
            title = "{}, per second"
            query = f"sum by ({', '.join(labels)}) ({_rate(metric.name)})"
        case "histogram":
            buckets = _rate(f"{metric.name}_bucket")
            title = "{}, p99"
            query = f"histogram_quantile(0.99, sum by (le, {', '.join(labels)}) ({buckets}))"
        case _:
            title, query = "{}", metric.name + _SHOWN
    timed = metric.kind != "counter" and metric.name.endswith("_seconds")
    legend = " ".join(f"{{{{{label}}}}}" for label in labels)
    target = {"refId": "A", "datasource": _SOURCE, "expr": query, "legendFormat": legend}
    return {
        "type": "timeseries",
        "id": number,
        "title": title.format(metric.name.removeprefix(PREFIX)),
        "description": metric.text,
        "datasource": _SOURCE,
        "gridPos": position,
        "fieldConfig": {
            "defaults": {"unit": "s" if timed else "short", "min": 0},
            "overrides": [],
        },
        "options": {"tooltip": {"mode": "multi", "sort": "desc"}},
        "targets": [target | {"range": True}],
    }


def _rate(series: str) -> str:
    return f"rate({series}{_SHOWN}[$__rate_interval])"
