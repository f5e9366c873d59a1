"""Spans and log lines of real processes, as a real collector and a reader of JSON get them."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.instrumentation.grpc import aio_client_interceptors
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import format_trace_id

from headstart import PrecomputeClient
from headstart.v1 import precompute_pb2 as pb
from tests.support.messages_api import MessagesApi
from tests.support.otlp import Collector, Span, collecting
from tests.support.pipelines import REFERENCES
from tests.support.processes import Process, api, run_headstart, serving, stub, worker
from tests.support.requests import noop, results
from tests.support.valkey import Valkey, free_port
from tests.support.waiting import wait_until

LIGHT = {"HEADSTART_BRIDGING": "false", "HEADSTART_PIPELINES": REFERENCES}
JSON = {"HEADSTART_LOG_FORMAT": "json", "HEADSTART_LOG_LEVEL": "debug"}
CALLS = "headstart.v1.PrecomputeService"
ANCHOR, TARGET = "quixotic lighthouse", "velvet earthquake"
"""No words of the vocabulary: the model is asked for them."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as made:
        yield made


def traced(endpoint: str) -> dict[str, str]:
    return {
        "HEADSTART_TRACING": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "50",
    }


def lines(process: Process) -> list[dict[str, Any]]:
    """What it logged, every line of which must be JSON."""
    return [json.loads(line) for line in process.output.splitlines()]


def events(found: list[dict[str, Any]]) -> Counter[str]:
    return Counter(line["event"] for line in found if "event" in line)


@asynccontextmanager
async def traced_client(address: str) -> AsyncIterator[tuple[PrecomputeClient, TracerProvider]]:
    """A client as a backend that is traced has it."""
    provider = TracerProvider()
    interceptors = aio_client_interceptors(tracer_provider=provider)
    async with PrecomputeClient(address, interceptors=interceptors) as client:
        yield client, provider
    provider.shutdown()


async def test_a_game_can_be_followed_from_its_start_to_its_results(
    collector: Collector, tmp_path: Path
):
    with MessagesApi(delay=0.1) as anthropic:
        settings = JSON | traced(collector.endpoint)
        settings |= {"ANTHROPIC_API_KEY": "k", "ANTHROPIC_BASE_URL": anthropic.url}
        settings |= {"HEADSTART_DATA_DIR": str(tmp_path)}
        async with serving(**settings) as (server, address):
            async with traced_client(address) as (client, backend):
                with backend.get_tracer("shop").start_as_current_span("a user begins") as caller:
                    begun = format_trace_id(caller.get_span_context().trace_id)
                    await client.start_bridging("g", ANCHOR, TARGET, "haiku")
                    await client.start_bridging("g", ANCHOR, TARGET, "haiku")
                with backend.get_tracer("shop").start_as_current_span("submits") as caller:
                    submitted = format_trace_id(caller.get_span_context().trace_id)
                    answer = await client.get_results("g", wait=60)
                assert answer.bridging
                assert answer.bridging.haiku_clues
                async with aclosing(client.watch_results("g")) as watched:
                    assert [list(each.missing) async for each in watched] == [[]]
            await wait_until(lambda: collector.named("run bridging"))
            await wait_until(lambda: collector.named(f"{CALLS}/WatchResults"))
            server.send(signal.SIGTERM)
            assert await server.ended() == 0
            told = lines(server)
        asked = anthropic.requests[-1]

    first, second = collector.named(f"{CALLS}/StartPrecompute")
    assert {first.trace, second.trace} == {begun}
    assert first.kind == "SERVER"
    assert first.parent, "it is a child of the client's span"
    [queued] = collector.named("enqueue bridging", headstart_outcome="started")
    assert (queued.trace, queued.kind) == (begun, "PRODUCER")
    assert queued.parent in (first.span, second.span)
    [joined] = collector.named("enqueue bridging", headstart_outcome="joined")
    assert joined.links == (queued.ids,)
    got = collector.one(f"{CALLS}/GetResults")
    assert (got.trace, got.service) == (submitted, "headstart-api")
    assert got.links == (queued.ids,)
    assert got.attributes["headstart.outcome"] == "complete"
    assert got.attributes["headstart.revision"] == 1
    for span in collector.spans:
        assert ANCHOR.split(maxsplit=1)[0] not in span.texts, "nobody asked for what the user wrote"
    assert "traceparent" not in asked.headers, "it is no business of Anthropic's"
    run = check_run(collector, queued)
    check_log(told, begun, run)
    assert ANCHOR not in json.dumps(told)


def check_run(collector: Collector, queued: Span) -> Span:
    """The run of a game against Haiku is a tree that links to the span that queued it."""
    run = collector.one("run bridging")
    assert (run.parent, run.kind, run.service) == ("", "CONSUMER", "headstart-worker")
    assert run.links == (queued.ids,)
    assert run.attributes["headstart.key"] == "g"
    assert run.attributes["headstart.end"] == "completed"
    assert run.attributes["headstart.attempt"] == 1
    steps = {span.name: span for span in collector.spans if span.name.startswith("step ")}
    names = {"embed_endpoints", "lexical_bridge", "null_samples", "haiku_bridge"}
    assert steps.keys() == {f"step {name}" for name in (*names, "haiku_embeddings")}
    assert {(span.trace, span.parent) for span in steps.values()} == {run.ids}
    embedded = collector.named("embeddings all-MiniLM-L6-v2", headstart_texts=2)
    assert steps["step embed_endpoints"].span in {span.parent for span in embedded}
    model = collector.one("anthropic.messages.create")
    assert (model.trace, model.parent) == (run.trace, steps["step haiku_bridge"].span)
    assert model.attributes["gen_ai.usage.output_tokens"] == 1
    assert model.attributes["gen_ai.request.model"] == "claude-haiku-5-5"
    end = collector.one("finish")
    assert (end.trace, end.parent) == run.ids
    return run


def check_log(told: list[dict[str, Any]], begun: str, run: Span) -> None:
    """Each thing that happened is one line, which leads to its trace."""
    by_event = events(told)
    wanted = {"run.started": 1, "run.joined": 1, "run.claimed": 1, "run.completed": 1}
    wanted["step.completed"] = 5
    assert by_event == wanted
    about = {line["event"]: line for line in told if "event" in line}
    for event in ("run.started", "run.claimed", "run.completed"):
        line = about[event]
        assert (line["namespace"], line["key"], line["revision"]) == ("default", "g", 1)
        assert line["pipeline"] == "bridging"
    assert about["run.started"]["trace_id"] == begun
    assert (about["run.completed"]["trace_id"], about["run.completed"]["span_id"]) == run.ids
    assert about["run.completed"]["duration_ms"] > 0
    assert about["run.completed"]["attempt"] == 1
    assert about["step.completed"]["trace_id"] == run.trace


def mortal(key: str, directory: Path) -> pb.StartPrecomputeRequest:
    """A run that ends its first worker."""
    spec = pb.CustomSpec(pipeline="mortal")
    spec.inputs.update({"directory": str(directory), "deaths": 1})
    return pb.StartPrecomputeRequest(key=key, custom=spec)


@pytest.mark.chaos
async def test_a_run_whose_worker_was_killed_still_links_to_its_start(
    collector: Collector, valkey: Valkey, tmp_path: Path
):
    settings = LIGHT | JSON | traced(collector.endpoint) | {"HEADSTART_LEASE": "2"}
    async with api(valkey.url, **settings) as (_, address), stub(address) as service:
        async with worker(valkey.url, **settings) as one, worker(valkey.url, **settings) as two:
            await service.StartPrecompute(mortal("k", tmp_path))
            answer = await service.GetResults(results("k", 30))
            assert answer.status == pb.PRECOMPUTE_STATUS_COMPLETED
            await wait_until(lambda: collector.named("run mortal", headstart_attempt=2))
            both = lines(one) + lines(two)
    run = collector.one("run mortal", headstart_attempt=2)
    await wait_until(lambda: collector.named("enqueue mortal"))
    assert run.links == (collector.one("enqueue mortal").ids,)
    counted = events(both)
    # More than once where the machine stood still longer than a lease.
    assert counted["run.reclaimed"] >= 1
    assert counted["run.claimed"] >= 2
    assert counted["run.completed"] == 1
    assert 2 in {line["attempt"] for line in both if line.get("event") == "run.claimed"}
    reclaimed = [line for line in both if line.get("event") == "run.reclaimed"]
    assert {(line["key"], line["level"]) for line in reclaimed} == {("k", "warning")}


@pytest.mark.chaos
async def test_a_start_that_is_not_sampled_leaves_no_spans_of_its_run(
    collector: Collector, valkey: Valkey
):
    settings = LIGHT | traced(collector.endpoint)
    samplers = settings | {"OTEL_TRACES_SAMPLER": "parentbased_always_off"}
    async with (
        api(valkey.url, **samplers) as (_, address),
        worker(valkey.url, **settings),
        stub(address) as service,
    ):
        await service.StartPrecompute(noop("dropped"))
        await service.GetResults(results("dropped", 20))
        parent = (("traceparent", f"00-{'a' * 32}-{'b' * 16}-01"),)
        await service.StartPrecompute(noop("kept"), metadata=parent)
        await service.GetResults(results("kept", 20))
        await wait_until(lambda: collector.named("run noop"))
    assert [span.attributes["headstart.key"] for span in collector.named("run noop")] == ["kept"]
    assert {span.trace for span in collector.named("enqueue noop")} == {"a" * 32}


async def test_a_collector_that_is_away_costs_no_call_and_no_stop(valkey: Valkey):
    settings = LIGHT | traced(f"http://127.0.0.1:{free_port()}")
    settings |= {"OTEL_BSP_MAX_QUEUE_SIZE": "16", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "8"}
    async with (
        api(valkey.url, **settings) as (server, address),
        worker(valkey.url, **settings) as work,
        stub(address) as service,
    ):
        for i in range(50):
            await service.StartPrecompute(noop(f"k{i}"))
            answer = await service.GetResults(results(f"k{i}", 20))
            assert answer.status == pb.PRECOMPUTE_STATUS_COMPLETED
        for process in (server, work):
            process.send(signal.SIGTERM)
            assert await process.ended() == 0
            assert "Traceback" not in process.output


async def test_tracing_without_its_extra_or_with_nonsense_stops_the_start(tmp_path: Path):
    (tmp_path / "opentelemetry").mkdir()
    (tmp_path / "opentelemetry" / "__init__.py").touch()
    for change, said in (
        ({"PYTHONPATH": f"{tmp_path}"}, "pip install '.[tracing]' in Headstart's clone"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "must be grpc, not http/protobuf"),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "soon"}, "OpenTelemetry refuses its settings"),
    ):
        paths = (change.get("PYTHONPATH"), os.environ.get("PYTHONPATH"))
        changed = change | {"PYTHONPATH": ":".join(path for path in paths if path)}
        process = run_headstart("serve", HEADSTART_TRACING="true", **LIGHT, **changed)
        try:
            assert await process.ended() == 2
            assert said in process.output
            assert "Traceback" not in process.output
        finally:
            process.stop()
