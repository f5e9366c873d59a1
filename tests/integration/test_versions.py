"""An answer is made by one version of the code and one model, whatever workers come and go."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from headstart import PrecomputeClient, PrecomputeStatus, Results, StartOutcome, StepOrigin
from tests.support.commands import done_here
from tests.support.processes import Process, api, worker
from tests.support.scrape import metrics_of, value
from tests.support.valkey import Valkey
from tests.support.versioned_pipelines import MADE_BY, MODULE, REFERENCES
from tests.support.waiting import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="module")

REMEMBERING = f"{MODULE}:REMEMBERING"


class Site:
    """A store, and processes of any version and model on it."""

    def __init__(self, redis_url: str, client: PrecomputeClient) -> None:
        self.url, self.client = redis_url, client

    @staticmethod
    def settings(version: str, **more: str) -> dict[str, str]:
        return {
            "HEADSTART_BRIDGING": "false",
            "HEADSTART_PIPELINES": REFERENCES,
            "HEADSTART_LEASE": "1",
            "HEADSTART_DRAIN": "0.1",
            "TEST_PIPELINE_VERSION": version,
            **more,
        }

    @asynccontextmanager
    async def worker(self, model: str, version: str = "1", **more: str) -> AsyncIterator[Process]:
        settings = self.settings(version, HEADSTART_HAIKU_MODEL=model, **more)
        async with worker(self.url, **settings) as process:
            yield process

    async def leaves(self, process: Process) -> None:
        process.send(signal.SIGTERM)
        assert await process.ended() == 0

    async def ended(self, key: str, revision: int = 0) -> Results:
        return await self.client.get_results(key, wait=30, min_revision=revision)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """A store, and an API process of version 1."""
    valkey = Valkey(tmp_path_factory.mktemp("valkey"))
    await valkey.start()
    try:
        async with (
            api(valkey.url, **Site.settings("1")) as (_, address),
            PrecomputeClient(address) as client,
        ):
            yield Site(valkey.url, client)
    finally:
        await valkey.kill()


def makers(results: Results) -> set[tuple[Any, ...]]:
    """The version and the model of each value of an answer."""
    return {found for each in (results.custom or {}).values() for found in MADE_BY.findall(each)}


async def test_a_model_that_takes_a_run_over_shares_no_answer_with_the_one_before(
    site: Site, tmp_path: Path
) -> None:
    gate = tmp_path / "go"
    async with site.worker("a") as first:
        await site.client.start("taken over", "versioned", {"gate": str(gate)})
        partial = await site.client.get_results(
            "taken over", wait=30, required_steps=["one", "apart"]
        )
        assert makers(partial) == {("1", "a")}
        async with site.worker("b"):
            await site.leaves(first)
            gate.touch()
            results = await site.ended("taken over")
            assert results.status is PrecomputeStatus.COMPLETED
            assert makers(results) == {("1", "b")}
            assert results.revision == partial.revision + 1, "ended steps have changed"
            again = await site.client.start("taken over", "versioned", {"gate": str(gate)})
            assert again.outcome is StartOutcome.REUSED


async def test_other_inputs_keep_no_step_of_another_model(site: Site) -> None:
    async with site.worker("a") as first:
        await site.client.start("counted", "versioned", {"count": 1})
        assert makers(await site.ended("counted")) == {("1", "a")}
        second = await site.client.start("counted", "versioned", {"count": 2})
        kept = await site.ended("counted", second.revision)
        assert kept.steps["two"].origin is StepOrigin.KEPT, "the same model's"
        await site.leaves(first)
    async with site.worker("b"):
        same = await site.client.start("counted", "versioned", {"count": 2})
        assert same.outcome is StartOutcome.STARTED, "what a has made is not reused"
        assert makers(await site.ended("counted", same.revision)) == {("1", "b")}
        other = await site.client.start("counted", "versioned", {"count": 3})
        results = await site.ended("counted", other.revision)
        assert makers(results) == {("1", "b")}
        assert results.artifact("counted").startswith("3 of ")


async def test_a_memo_serves_no_other_model(site: Site) -> None:
    async with site.worker("a") as first:
        for key in ("memo-1", "memo-2"):
            await site.client.start(key, "remembering", {"word": "sea", "key": key})
            results = await site.ended(key)
            assert makers(results) == {("1", "a")}
        assert results.steps["remembered"].origin is StepOrigin.MEMOISED
        await site.leaves(first)
    async with site.worker("b"):
        await site.client.start("memo-3", "remembering", {"word": "sea", "key": "memo-3"})
        results = await site.ended("memo-3")
        assert makers(results) == {("1", "b")}
        assert results.steps["remembered"].origin is StepOrigin.COMPUTED


async def test_a_version_that_workers_lack_waits_for_one_that_has_it(site: Site) -> None:
    settings = Site.settings("2")
    async with (
        site.worker("a"),
        api(site.url, **settings) as (process, address),
        PrecomputeClient(address) as client,
    ):
        await client.start("ahead", "versioned", {})

        async def unserved() -> bool:
            stats = await metrics_of(process)
            return bool(value(stats, "headstart_queue_unserved_runs", pipeline="versioned"))

        await wait_until(unserved)
        status = await client.get_status("ahead")
        assert status.status is PrecomputeStatus.PENDING
        assert status.pending_reason == "no_worker_for_version"
        told = json.loads(done_here("doctor", "--json", "--address", address).out)
        [check] = [each for each in told["checks"] if each["check"] == "unserved"]
        assert (check["verdict"], check["found"]) == (
            "WARN",
            "no worker has this version of the pipeline versioned: 1 run waits",
        )
        [check] = [each for each in told["checks"] if each["check"] == "work"]
        assert check["verdict"] == "OK", "the worker takes jobs: it needs no cure"
        await site.client.start("behind", "versioned", {})
        assert makers(await site.ended("behind")) == {("1", "a")}, "others do not wait for it"
        async with site.worker("a", "2"):
            results = await client.get_results("ahead", wait=30)
        assert (results.status, results.revision) == (PrecomputeStatus.COMPLETED, 1)
        assert makers(results) == {("2", "a")}
        assert results.pending_reason is None


async def test_a_worker_without_the_pipeline_leaves_its_runs(site: Site) -> None:
    async with site.worker("a", HEADSTART_PIPELINES=REMEMBERING):
        await site.client.start("lacking", "versioned", {})
        await site.client.start("other", "remembering", {"word": "lake"})
        assert (await site.ended("other")).status is PrecomputeStatus.COMPLETED
        status = await site.client.get_status("lacking")
        assert status.status is PrecomputeStatus.PENDING
        assert status.pending_reason == "no_worker_for_pipeline"
        async with site.worker("a"):
            results = await site.ended("lacking")
        assert results.status is PrecomputeStatus.COMPLETED
        assert makers(results) == {("1", "a")}


async def test_what_a_rolling_update_leaves_behind_is_done_by_the_new_version(
    site: Site, tmp_path: Path
) -> None:
    """Workers first: the old API process and its clients go last."""
    settings = Site.settings("3")
    gate = tmp_path / "go"
    async with site.worker("a", "2") as old:
        async with (
            api(site.url, **Site.settings("2")) as (_, address),
            PrecomputeClient(address) as client,
        ):
            await client.start("begun", "versioned", {"gate": str(gate)})
            await client.get_results("begun", wait=30, required_steps=["one"])
            await client.start("queued", "versioned", {"gate": str(gate), "value": 1})
            await site.leaves(old)
        async with (
            site.worker("b", "3"),
            api(site.url, **settings) as (_, address),
            PrecomputeClient(address) as client,
        ):
            gate.touch()
            for key in ("begun", "queued"):
                results = await client.get_results(key, wait=30)
                assert results.status is PrecomputeStatus.COMPLETED
                assert makers(results) == {("3", "b")}
