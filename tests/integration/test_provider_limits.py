"""A language model's API beside real workers: budgets, refusals, hung calls, drains."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from headstart import PrecomputeClient
from headstart.v1 import precompute_pb2 as pb
from tests.support import processes
from tests.support.commands import done_here
from tests.support.embeddings_api import TOKENS, EmbeddingsApi
from tests.support.messages_api import MessagesApi, Reply
from tests.support.processes import Process, Service, stub
from tests.support.provider_pipelines import ASKING, EMBEDS
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

ONLY = {"HEADSTART_BRIDGING": "false", "HEADSTART_PIPELINES": ASKING}


@pytest.fixture
def api() -> Iterator[MessagesApi]:
    with MessagesApi() as api:
        yield api


@dataclass(frozen=True)
class Served:
    service: Service
    address: str
    workers: tuple[Process, ...]

    async def start(self, key: str, pipeline: str = "patient") -> None:
        spec = pb.CustomSpec(pipeline=pipeline)
        await self.service.StartPrecompute(pb.StartPrecomputeRequest(key=key, custom=spec))

    async def report(self, key: str, pipeline: str = "patient") -> pb.StepReport:
        """The report of the run's step, once it has ended."""
        request = pb.GetResultsRequest(key=key)
        request.wait.FromSeconds(30)
        return (await self.service.GetResults(request)).steps[pipeline]

    async def played(self, key: str, pipeline: str = "patient") -> pb.StepReport:
        await self.start(key, pipeline)
        return await self.report(key, pipeline)

    async def stats(self) -> pb.GetStatsResponse:
        return await self.service.GetStats(pb.GetStatsRequest())

    async def doctor(self, check: str) -> list[tuple[str, str]]:
        """The verdicts of a check, each with what was found."""
        done = await asyncio.to_thread(done_here, "doctor", "--json", "--address", self.address)
        found = json.loads(done.out)["checks"]
        return [(each["verdict"], each["found"]) for each in found if each["check"] == check]


@asynccontextmanager
async def served(
    valkey: Valkey, api: MessagesApi, limits: Path, text: str, workers: int = 1
) -> AsyncIterator[Served]:
    await asyncio.to_thread(limits.write_text, text)
    own = {
        "HEADSTART_LIMITS": str(limits),
        "HEADSTART_DRAIN": "20",
        "ANTHROPIC_API_KEY": "key",
        "ANTHROPIC_BASE_URL": api.url,
    }
    url = valkey.url
    async with (
        processes.api(url, **ONLY) as (_, address),
        stub(address) as service,
        processes.worker(url, **ONLY, **own) as first,
    ):
        if workers == 1:
            yield Served(service, address, (first,))
            return
        async with processes.worker(url, **ONLY, **own) as second:
            yield Served(service, address, (first, second))


async def test_a_namespace_over_its_budget_fails_at_once_until_it_is_raised(
    valkey: Valkey, api: MessagesApi, tmp_path: Path
) -> None:
    limits = tmp_path / "limits.toml"
    budget = "[namespaces.default]\nllm_tokens_a_day = "
    async with served(valkey, api, limits, f"{budget}3\n") as it:
        for key in ("a", "b"):  # two tokens each
            assert (await it.played(key)).state == pb.STEP_STATE_COMPLETED
        report = await it.played("c")
        assert report.failure_reason == pb.FAILURE_REASON_OVER_BUDGET
        assert "has used up its budget of 3 tokens" in report.error
        assert len(api.requests) == 2
        stats = await it.stats()
        assert dict(stats.over_budget) == {"default": 3}
        assert stats.ledger.llm_calls == 2
        ((verdict, found),) = await it.doctor("budget")
        assert (verdict, "namespace default" in found) == ("WARN", True)
        limits.write_text(f"{budget}3000\n")
        await it.workers[0].says("limits read from")
        assert (await it.played("d")).state == pb.STEP_STATE_COMPLETED


async def test_an_embeddings_endpoint_has_its_key_of_a_file_and_its_tokens_in_ledger_and_budget(
    valkey: Valkey, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("a-key-of-a-file\n")
    limits = tmp_path / "limits.toml"
    limits.write_text(f"[namespaces.default]\nllm_tokens_a_day = {2 * TOKENS}\n")
    only = {"HEADSTART_BRIDGING": "false", "HEADSTART_PIPELINES": EMBEDS}
    with EmbeddingsApi() as api:
        own = {
            "HEADSTART_LIMITS": str(limits),
            "HEADSTART_EMBEDDINGS_URL": api.url,
            "HEADSTART_EMBEDDINGS_MODEL": "tiny",
            "HEADSTART_EMBEDDINGS_KEY_FILE": str(tmp_path / "key"),
        }
        async with (
            processes.api(valkey.url, **only) as (_, address),
            processes.worker(valkey.url, **only, **own),
            PrecomputeClient(address) as client,
        ):
            for key in ("aeiou", "other"):
                await client.start(key, "embedding", {"text": key})
                results = await client.get_results(key, wait=30)
                assert len(results.artifact("embedding", list[float])) == 2
            await client.start("third", "embedding", {"text": "third"})
            report = (await client.get_results("third", wait=30)).steps["embedding"]
            assert report.failure_reason == "over_budget"
            assert [each["input"] for each in api.requests] == [["dimension"], ["aeiou"], ["other"]]
            assert set(api.keys) == {"Bearer a-key-of-a-file"}
            ledger = (await client.get_stats()).ledger
            assert sum(work.llm_tokens for work in ledger.fates.values()) == 2 * TOKENS


async def test_one_refusal_makes_all_workers_pause(
    valkey: Valkey, api: MessagesApi, tmp_path: Path
) -> None:
    limits = tmp_path / "limits.toml"
    api.script(Reply.status(429, retry_after="4"))
    async with served(valkey, api, limits, "", workers=2) as it:
        await it.start("first")
        await wait_until(lambda: api.requests)

        async def paused() -> list[pb.ProviderStatus]:
            return [each for each in (await it.stats()).providers if each.HasField("paused")]

        (provider,) = await wait_until(paused)
        assert (provider.last_error, provider.failing) == ("rate_limited", False)
        games = [f"game-{number}" for number in range(6)]
        for key in games:
            await it.start(key)
        assert await paused(), "the rest begins within the pause"
        assert len(api.requests) == 1
        for key in ("first", *games):
            assert (await it.report(key)).state == pb.STEP_STATE_COMPLETED
        assert len(api.requests) == 2 + len(games)
        assert await paused() == []


async def test_a_hung_call_ends_before_its_step_and_is_counted(
    valkey: Valkey, api: MessagesApi, tmp_path: Path
) -> None:
    api.script(*[Reply.clues(["late"], delay=60)] * 2)
    async with served(valkey, api, tmp_path / "limits.toml", "") as it:
        report = await it.played("hung", "hasty")
        assert report.failure_reason == pb.FAILURE_REASON_DEPENDENCY_AWAY
        assert "the Anthropic API did not answer within" in report.error
        await it.start("cancelled")
        await wait_until(lambda: len(api.requests) == 2)
        await it.service.CancelPrecompute(pb.CancelPrecomputeRequest(key="cancelled"))

        async def counted() -> bool:
            return (await it.stats()).ledger.llm_calls == 2

        await wait_until(counted)


async def test_a_worker_that_drains_ends_its_paid_call_and_hands_on_what_waits(
    valkey: Valkey, api: MessagesApi, tmp_path: Path
) -> None:
    limits = "[providers.anthropic]\nconcurrency = 1\n"
    # Only the call that is under way at the signal takes long.
    api.script(Reply.clues(["mist"], delay=3))
    async with served(valkey, api, tmp_path / "limits.toml", limits) as it:
        await it.start("paid")
        await wait_until(lambda: api.requests)
        await it.start("waits")

        async def taken() -> bool:
            return (await it.stats()).active_tasks == 2

        await wait_until(taken)
        (old,) = it.workers
        old.send(signal.SIGTERM)
        await old.says("default/waits.* handed on")
        assert len(api.requests) == 1
        settings = {"ANTHROPIC_API_KEY": "key", "ANTHROPIC_BASE_URL": api.url}
        async with processes.worker(valkey.url, **ONLY, **settings):
            for key in ("paid", "waits"):
                assert (await it.report(key)).state == pb.STEP_STATE_COMPLETED
        assert len(api.requests) == 2
        assert await old.ended() == 0
