"""Asks the HTTP port of a process as Prometheus does, and reads what it tells."""

from __future__ import annotations

import asyncio
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.support.processes import ROOT, Process


class Answer(NamedTuple):
    """An answer of the HTTP port."""

    status: int
    headers: Mapping[str, str]
    text: str


async def http_of(process: Process) -> str:
    """The host and port of a process's HTTP port."""
    return (await process.says(r"HTTP on (\S+)"))[1]


async def asked(process: Process, path: str = "metrics", **headers: str) -> Answer:
    """What it answers to a GET."""
    base = await http_of(process)
    return await asyncio.to_thread(_get, f"http://{base}/{path}", headers)


def _get(url: str, headers: Mapping[str, str]) -> Answer:
    request = urllib.request.Request(url, headers=dict(headers))
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return Answer(answer.status, dict(answer.headers), answer.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, dict(error.headers), error.read().decode())


async def metrics_of(process: Process) -> dict[str, Metric]:
    """Its metrics by their names; those of counters end in _total, as in Prometheus."""
    answer = await asked(process)
    assert answer.status == 200, answer
    return parsed(answer.text)


def parsed(text: str) -> dict[str, Metric]:
    """The metrics of a text by their names."""
    found: dict[str, Metric] = {}
    for metric in text_string_to_metric_families(text):
        name = metric.name + "_total" * (metric.type == "counter")
        assert name not in found, f"{name} stands there twice"
        found[name] = metric
    return found


def value(metrics: Mapping[str, Metric], sample: str, **labels: str) -> float | None:
    """The value of one sample; of a histogram's, `sample` ends in _count or _sum."""
    name = sample if sample in metrics else re.sub("_(count|sum)$", "", sample)
    for each in metrics[name].samples:
        if each.name == sample and labels == each.labels:
            return each.value
    return None


class Row(NamedTuple):
    """A metric as docs/metrics.md tells it."""

    kind: str
    labels: frozenset[str]
    processes: frozenset[str]
    """The processes that have it."""


def documented(page: Path = ROOT / "docs" / "metrics.md") -> dict[str, Row]:
    """The table of docs/metrics.md."""
    rows = {}
    for line in page.read_text().splitlines():
        if line.startswith("| `"):
            name, kind, labels, having, meaning = [
                cell.strip() for cell in line.strip("|").split("|")
            ]
            assert meaning
            found = frozenset(re.findall("`([a-z_]+)`", labels))
            rows[name.strip("`")] = Row(kind, found, frozenset(having.split(", ")))
    return rows
