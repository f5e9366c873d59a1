"""Each fault of a shared service, caused on real processes: doctor and a metric name its cause.

`make drills` prints how long that took from the fault on; PAGE=docs/operations.md keeps it. A metric is read from the process
itself: a scrape interval and the alert's `for` come on top.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deploy.markers import replaced, row
from headstart import PrecomputeClient
from tests.support.certificates import Certificate, self_signed
from tests.support.commands import run
from tests.support.messages_api import MessagesApi, Reply
from tests.support.occupying_pipelines import REFERENCE as OCCUPYING
from tests.support.pipelines import REFERENCES
from tests.support.processes import Process, api, worker
from tests.support.provider_pipelines import ASKING
from tests.support.proxy import proxy
from tests.support.scrape import http_of, metrics_of, value
from tests.support.valkey import Valkey
from tests.support.versioned_pipelines import MODULE
from tests.support.waiting import PATIENT, wait_until

pytestmark = pytest.mark.chaos

MINUTE = 60.0
VERSIONED = f"{MODULE}:VERSIONED"
BOTH = {
    "HEADSTART_BRIDGING": "false",
    "HEADSTART_PIPELINES": f"{REFERENCES},{OCCUPYING},{VERSIONED}",
    "TEST_PIPELINE_VERSION": "2",
}
P256 = ("ec", "-pkeyopt", "ec_paramgen_curve:P-256")


@dataclass(frozen=True)
class Row:
    """A fault, what doctor said of it and when, and when a metric showed it."""

    fault: str
    found: str
    doctor: float
    metric: float | None

    @property
    def line(self) -> str:
        metric = "" if self.metric is None else f"{self.metric:.1f} s"
        return row(self.fault, f"`{self.found}`", f"{self.doctor:.1f} s", metric)


@pytest.fixture(scope="module")
def table(pytestconfig: pytest.Config) -> Iterator[list[Row]]:
    """Prints the rows of all drills at the end, and writes them into the page that is named."""
    rows: list[Row] = []
    yield rows
    lines = [row("fault", "doctor reports", "after", "metric after"), "|---|---|---|---|"]
    lines += [each.line for each in rows]
    capture: Any = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print("", "", *lines, sep="\n")
    if page := os.environ.get("HEADSTART_DRILLS"):
        Path(page).write_text(replaced(Path(page).read_text(), lines))


Metric = Callable[[], Awaitable[bool]]


@dataclass(frozen=True)
class Site:
    """A service under drill, and where its doctor asks."""

    table: list[Row]
    server: Process
    address: str
    ca: Path | None = None

    async def doctor(self) -> dict[str, list[str]]:
        """What a strict doctor warns of or fails on, by check."""
        arguments = ["--strict", "--json", "--timeout", "2", "--address", self.address]
        tls = {} if self.ca is None else {"HEADSTART_CA": str(self.ca)}
        http = await http_of(self.server)
        done = await asyncio.to_thread(run, "doctor", *arguments, "--http", http, **tls)
        bad: dict[str, list[str]] = {}
        for each in json.loads(done.out)["checks"]:
            if each["verdict"] in ("WARN", "FAIL"):
                assert each["advice"]
                bad.setdefault(each["check"], []).append(each["found"])
        assert done.code == bool(bad), done
        return bad

    async def drill(self, fault: str, check: str, found: str, metric: Metric | None = None) -> None:
        """Wait until doctor's `check` reports `found`, and until the metric does. It began now."""
        began = time.monotonic()

        async def reported() -> float:
            async def names() -> bool:
                return any(found in text for text in (await self.doctor()).get(check, ()))

            await wait_until(names, MINUTE)
            return time.monotonic() - began

        async def measured() -> float | None:
            if metric is None:
                return None
            await wait_until(metric, MINUTE)
            return time.monotonic() - began

        self.table.append(Row(fault, found, *await asyncio.gather(reported(), measured())))

    async def page(self, *names: str) -> None:
        """Read the live page's events until one has all these causes."""
        host, _, port = (await http_of(self.server)).rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 24)
        writer.write(f"GET /api/events HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n".encode())
        async with asyncio.timeout(MINUTE):
            found: set[str] = set()
            while not found >= set(names):
                line = await reader.readline()
                assert line, "the stream has ended"
                if line.startswith(b"data: "):
                    problems = json.loads(line[len(b"data: ") :]).get("problems", ())
                    found = {each["name"] for each in problems}
        writer.close()

    def shows(self, sample: str, /, **labels: str) -> Metric:
        """Whether a sample of the server is above 0."""
        return shown(self.server, sample, 0, **labels)

    def above_half(self, sample: str, /) -> Metric:
        """Whether a sample of the server is above a half."""
        return shown(self.server, sample, 0.5)


def shown(of: Process, sample: str, least: float, /, **labels: str) -> Metric:
    async def above() -> bool:
        metrics = await metrics_of(of)
        return sample in metrics and (value(metrics, sample, **labels) or 0) > least

    return above


async def test_doctor_names_why_runs_wait(valkey: Valkey, tmp_path: Path, table: list[Row]) -> None:
    """With the lease of 10 s that a service has by default."""
    gated = {"directory": str(tmp_path)}
    async with (
        api(valkey.url, **BOTH) as (server, address),
        PrecomputeClient(address, namespace="shop", timeout=PATIENT) as shop,
        PrecomputeClient(address, namespace="robots", timeout=PATIENT) as robots,
    ):
        site = Site(table, server, address)
        async with worker(valkey.url, **BOTH) as lost:
            await shop.start("first", "noop", {})
            await shop.get_results("first", wait=20)
            assert not {"no worker", "unserved", "full", "flood"} & (await site.doctor()).keys()
            lost.kill()
        await shop.start("waits", "occupying", gated)
        depth = site.shows("headstart_queue_depth")
        await site.drill(
            "no worker: the last is killed", "no worker", "no worker is running", depth
        )

        old = BOTH | {"HEADSTART_PIPELINES": VERSIONED, "TEST_PIPELINE_VERSION": "1"}
        async with worker(valkey.url, **old):
            unserved = site.shows("headstart_queue_unserved_runs", pipeline="occupying")
            found = "no worker has the pipeline occupying"
            await site.drill("workers without the pipeline", "unserved", found, unserved)
            await shop.start("newer", "versioned", {})
            unserved = site.shows("headstart_queue_unserved_runs", pipeline="versioned")
            found = "no worker has this version of the pipeline versioned"
            await site.drill("workers of another version", "unserved", found, unserved)

        async with worker(valkey.url, **BOTH, HEADSTART_WORKER_CONCURRENCY="1") as small:
            await shop.start("waits, too", "occupying", gated)
            busy = shown(small, "headstart_worker_slots_busy", 0)
            await site.drill("every slot is taken", "full", "all workers are full", busy)
            for number in range(150):
                await robots.start(f"flood-{number}", "occupying", gated)
            share = site.above_half("headstart_queue_largest_share")
            found = "the namespace robots holds"
            await site.drill("150 runs of one namespace", "flood", found, share)
            await site.page("full", "flood")
            (tmp_path / "go").touch()


@asynccontextmanager
async def behind_proxy(valkey: Valkey, table: list[Row]) -> AsyncIterator[tuple[Site, object]]:
    """An API whose Redis is reached as a user of its own, through a proxy."""
    async with valkey.client() as admin:
        rights = ("~headstart:*", "&headstart:*", "+@all", "-@admin", "-@dangerous", "+info")
        await admin.execute_command("ACL", "SETUSER", "headstart", "on", ">s3cret", *rights)
    async with proxy(valkey.port) as between:
        url = f"redis://headstart:s3cret@127.0.0.1:{between.port}"
        async with api(url, **BOTH) as (server, address):
            yield Site(table, server, address), between


async def test_doctor_names_what_redis_does(valkey: Valkey, table: list[Row]) -> None:
    async with behind_proxy(valkey, table) as (site, between), valkey.client() as admin:
        assert not {"slow store", "store", "readiness"} & (await site.doctor()).keys()

        async def slow() -> bool:
            trips = (await metrics_of(site.server))["headstart_store_trip_duration_seconds"]
            late = [s.value for s in trips.samples if s.labels.get("le") == "0.1"]
            return sum(late) < sum(s.value for s in trips.samples if s.labels.get("le") == "+Inf")

        between.delay = 0.11
        await site.drill("Redis slow: 110 ms", "slow store", "Redis answers slowly", slow)
        between.delay = 0.0

        await admin.config_set("maxmemory", "1")
        errors = "headstart_store_errors_total"
        full = site.shows(errors, process="api", command="ping", error="full")
        await site.drill("Redis full", "readiness", "Redis' memory is full", full)
        await admin.config_set("maxmemory", "0")

        away = site.shows("headstart_store_unreachable_partitions", process="api")
        await admin.execute_command("ACL", "SETUSER", "headstart", "-@scripting")
        found = "Redis denies a right (NOPERM)"
        await site.drill("Redis refuses: a right is gone", "readiness", found, away)
        await admin.execute_command("ACL", "SETUSER", "headstart", "+@scripting")

        async def serves() -> bool:
            return "readiness" not in await site.doctor()

        await wait_until(serves)
        await valkey.kill()
        await site.drill("Redis away: killed", "readiness", "Redis does not answer", away)
        await site.page("store")


async def test_doctor_names_what_a_language_model_does(
    valkey: Valkey, tmp_path: Path, table: list[Row]
) -> None:
    limits = tmp_path / "limits.toml"
    limits.write_text("[namespaces.robots]\nllm_tokens_a_day = 1\n")
    only = {"HEADSTART_BRIDGING": "false", "HEADSTART_PIPELINES": ASKING}
    with MessagesApi() as model:
        own = {
            "HEADSTART_LIMITS": str(limits),
            "ANTHROPIC_API_KEY": "key",
            "ANTHROPIC_BASE_URL": model.url,
        }
        async with (
            api(valkey.url, **only) as (server, address),
            worker(valkey.url, **only, **own) as caller,
            PrecomputeClient(address, namespace="shop") as shop,
            PrecomputeClient(address, namespace="robots") as robots,
        ):
            site = Site(table, server, address)
            await robots.start("first", "patient", {})  # it uses the budget up
            await robots.get_results("first", wait=20)
            assert not {"budget", "provider"} & (await site.doctor()).keys()

            await robots.start("second", "patient", {})
            used_up = site.shows("headstart_budget_used_up_tokens", tenant="robots")
            found = "namespace robots has used up its 1 tokens"
            await site.drill("a namespace is over its budget", "budget", found, used_up)

            model.script(*[Reply.clues(["late"], delay=MINUTE)] * 40)
            for number in range(8):
                await shop.start(f"hangs-{number}", "hasty", {})

            async def is_open() -> bool:
                breakers = (await metrics_of(caller))["headstart_provider_breaker_open"]
                return any(sample.value for sample in breakers.samples)

            await site.drill(
                "the language model hangs", "provider", "fails, last by timeout", is_open
            )
            await site.page("budget", "provider")


async def test_doctor_names_a_certificate_that_ends(
    valkey: Valkey, tmp_path: Path, table: list[Row]
) -> None:
    lives = 12.0
    made: Certificate = self_signed(tmp_path, *P256, days=(-1, lives / 86400))
    ends = time.monotonic() + lives
    files = {"HEADSTART_TLS_CERT": str(made.cert), "HEADSTART_TLS_KEY": str(made.key)}
    async with api(valkey.url, **BOTH, **files) as (server, address):
        port = address.rpartition(":")[2]
        site = Site(table, server, f"localhost:{port}", made.cert)
        expiry = site.shows("headstart_certificate_expiry_timestamp_seconds")
        await site.drill("a certificate ends soon", "TLS", "for 0 more days", expiry)
        await wait_until(lambda: time.monotonic() > ends, lives)
        await site.drill("a certificate has ended", "TLS", "certificate has expired", expiry)
