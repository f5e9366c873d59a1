"""A real Prometheus scrapes a real server and a worker under load; then it is asked everything.

Each query of the dashboard and of the rules must be valid and, unless it is about something that
does not happen here, have an answer.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from headstart import NotFound, PrecomputeClient, Tls
from tests.support.certificates import authority, signed
from tests.support.deployments import eventually
from tests.support.messages_api import MessagesApi, Reply
from tests.support.processes import ROOT, Process, clean_environment, serving, worker
from tests.support.scrape import asked, http_of
from tests.support.tokens import tokens_of
from tests.support.valkey import Valkey, free_port
from tests.support.waiting import PATIENT, wait_until

pytestmark = pytest.mark.observability

DASHBOARD = json.loads((ROOT / "deploy/grafana/dashboard.json").read_text())
RULES = ROOT / "deploy/prometheus"
RARE = {
    "headstart_queue_unserved_runs",
    "headstart_budget_used_up_tokens",
    "headstart_provider_healthy",
}
SILENT = {
    (
        "sum by (namespace, instance, provider) "
        '(rate(headstart_provider_over_budget_total{namespace=~"$namespace"}[$__rate_interval]))'
    ),
    (
        "sum by (namespace, instance, pipeline, step, outcome) "
        '(rate(headstart_step_items_total{namespace=~"$namespace"}[$__rate_interval]))'
    ),
}
"""Queries of the dashboard without an answer: nothing goes wrong, and no step is for each item."""
PAIRS = [("ocean", "forest"), ("music", "winter"), ("king", "bread"), ("word{}", "moon")]


class Asked(NamedTuple):
    prometheus: str
    texts: list[str]
    """What each process tells, as Prometheus reads it."""

    def query(self, expression: str) -> list[Any]:
        """The answer to an instant query, in Prometheus's form."""
        url = f"{self.prometheus}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                told = json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{expression}: {error.read().decode()}") from error
        assert told["status"] == "success"
        found: list[Any] = told["data"]["result"]
        return found

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.prometheus}/api/v1/{path}", timeout=10) as answer:
            return json.load(answer)["data"]


def expressions() -> Iterator[str]:
    """Every query of the dashboard."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]


def rules(name: str) -> list[dict[str, Any]]:
    [group] = yaml.safe_load((RULES / name).read_text())["groups"]
    return list(group["rules"])


def asked_for(expression: str) -> str:
    """The query as Grafana sends it."""
    asked = expression.replace("$__rate_interval", "1m")
    return asked.replace("$pipeline", ".*").replace("$namespace", ".*")


@asynccontextmanager
async def prometheus(directory: Path, targets: list[str], token: str) -> AsyncIterator[str]:
    """A Prometheus that scrapes these every second, by the page's own configuration."""
    binary = shutil.which("prometheus")
    assert binary, "prometheus is missing: apt-get install prometheus"
    (directory / "token").write_text(token)
    page = (ROOT / "docs" / "metrics.md").read_text()
    told = yaml.safe_load(page.split("```yaml\n")[1].split("```")[0])
    [job] = told["scrape_configs"]
    job["authorization"]["credentials_file"] = str(directory / "token")
    job["static_configs"] = [{"targets": targets}]
    told["rule_files"] = [str(ROOT / path) for path in told["rule_files"]]
    told["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (directory / "prometheus.yml").write_text(yaml.safe_dump(told))
    address = f"127.0.0.1:{free_port()}"
    process = Process(
        [
            binary,
            f"--config.file={directory}/prometheus.yml",
            f"--storage.tsdb.path={directory}/data",
            f"--web.listen-address={address}",
        ],
        clean_environment(),
    )
    try:
        await process.says("Server is ready to receive web requests")
        yield f"http://{address}"
    finally:
        process.stop()


async def load(address: str, ca: Path, token: str) -> None:
    """Games, waits, looks and mistakes, until cancelled."""
    async with PrecomputeClient(address, tls=Tls(ca=ca), token=token, timeout=PATIENT) as client:
        number = 0
        while True:
            for anchor, target in PAIRS:
                number += 1
                key = f"game-{number}"
                for _ in range(2):
                    await client.start_bridging(key, anchor.format(number), target, "haiku")
                await client.get_results(key)
                await client.get_results(key, wait=10)
                await client.get_results(key)
                async for _ in client.watch_results(key):
                    pass
            with pytest.raises(NotFound):
                await client.get_results("unknown")
            await client.cancel(key)
            await client.start_bridging(key, "other", "words", "human")
            await client.list_page()
            await client.get_stats()
            await asyncio.sleep(0.2)


@asynccontextmanager
async def observed(valkey: Valkey, directory: Path) -> AsyncIterator[Asked]:
    """A Prometheus that has seen a server with a worker, and another worker, under load."""
    ca = authority(directory, "ca")
    own = signed(ca, directory, "server")
    tokens = tokens_of(caller=("*", "admin"), scraper=("*", "metrics"))
    with MessagesApi() as language_model:
        language_model.script(Reply.status(529), Reply.status(401))
        environment = {
            "HEADSTART_REDIS_URL": valkey.url,
            "HEADSTART_TOKENS": str(tokens.written(directory / "tokens")),
            "ANTHROPIC_API_KEY": "test-key",
            "ANTHROPIC_BASE_URL": language_model.url,
        }
        certificate = {"HEADSTART_TLS_CERT": str(own.cert), "HEADSTART_TLS_KEY": str(own.key)}
        async with (
            serving(**(environment | certificate)) as (server, address),
            worker(valkey.url, **environment) as alone,
        ):
            targets = [await http_of(server), await http_of(alone)]
            token = tokens.by_name["scraper"]
            loading = asyncio.create_task(load(address, ca.cert, tokens.by_name["caller"]))
            try:
                async with prometheus(directory, targets, token) as url:
                    bearer = f"Bearer {token}"
                    texts = [(await asked(p, Authorization=bearer)).text for p in (server, alone)]
                    told = Asked(url, texts)
                    # Enough for a rate of everything that every game has.
                    for each in targets:
                        seen = f'count_over_time(up{{instance="{each}"}}[5m]) > 12'
                        await wait_until(lambda q=seen: _sync(told, q, loading), 120)
                    yield told
            finally:
                loading.cancel()
                ended = await asyncio.gather(loading, return_exceptions=True)
                assert isinstance(ended[0], asyncio.CancelledError), ended


async def _sync(told: Asked, query: str, loading: asyncio.Task[None]) -> bool:
    if loading.done():
        loading.result()
    return bool(await asyncio.to_thread(told.query, query))


async def test_prometheus_has_an_answer_to_every_query_of_the_dashboard_and_the_rules(
    valkey: Valkey, tmp_path: Path
):
    async with observed(valkey, tmp_path) as told:
        _check_names(told)
        await asyncio.to_thread(_check_targets, told)
        await asyncio.to_thread(_check_dashboard, told)
        await asyncio.to_thread(_check_rules, told)


def _check_names(told: Asked) -> None:
    """Names and units by Prometheus's conventions."""
    for text in told.texts:
        command = ["promtool", "check", "metrics"]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert "headstart_build_info" in text


def _check_targets(told: Asked) -> None:
    targets = told.get("targets")["activeTargets"]
    assert [t["lastError"] for t in targets if t["health"] != "up"] == []
    # Nobody else's metric has a name of ours, and the scrape is cheap.
    [[_, slowest]] = [
        r["value"] for r in told.query("max(max_over_time(scrape_duration_seconds[1m]))")
    ]
    assert float(slowest) < 10


def _check_dashboard(told: Asked) -> None:
    queries = list(expressions())
    assert len(queries) > 50

    def empty() -> set[str]:
        return {q for q in queries if not _answered(told.query(asked_for(q)))}

    # A busy machine's first games are late, and so is a rate of what they alone have.
    with suppress(AssertionError):
        eventually(lambda: empty() == SILENT, 60)
    assert empty() == SILENT


def _answered(result: list[Any]) -> bool:
    """Whether a panel would show something: a series, and not only of 0 through 0."""
    return any(not math.isnan(float(series["value"][1])) for series in result)


def _check_rules(told: Asked) -> None:
    recorded = {rule["record"] for rule in rules("recording.yaml")}
    for name in sorted(recorded):
        eventually(lambda name=name: told.query(name), 60)
    known = _known(told)
    alerts = {rule["alert"]: rule for rule in rules("alerts.yaml")}
    assert set(known) == set(alerts) | recorded
    for name, rule in known.items():
        assert rule["health"] == "ok", (name, rule.get("lastError"))

    def settled() -> bool:
        now = _known(told)
        firing = {name for name in alerts if now[name].get("alerts")}
        # The test's own certificate lasts two days: its alert is pending for an hour.
        shown = "HeadstartCertificateEnds" in firing
        # On a busy machine one of these may be pending for a moment.
        return shown and not firing & {
            *("HeadstartNotServing", "HeadstartStoreAway", "HeadstartNoWorker"),
        }

    eventually(settled, 60)
    for name, alert in alerts.items():
        assert _data_behind(told, alert["expr"]), f"{name} looks at what is not there"


def _known(told: Asked) -> dict[str, Any]:
    """Prometheus's rules, by their names."""
    return {rule["name"]: rule for group in told.get("rules")["groups"] for rule in group["rules"]}


def _data_behind(told: Asked, expression: str) -> bool:
    """Whether each metric that an alert's expression names has samples."""
    names = set(re.findall(r"\b(?:headstart|process)[_:][a-z0-9_:]+", expression))
    assert names
    return all(told.query(name) or _is_rare(told, name) for name in names)


def _is_rare(told: Asked, name: str) -> bool:
    """Whether a metric has samples only if something is wrong, or an author has a provider."""
    return name in RARE and any(f"# HELP {name} " in text for text in told.texts)
