"""What an earlier version wrote is still read and run: records, jobs and calls, byte by byte.

`frozen/layout-4.json` is what the code of decision 0048 had in Redis and on the wire in November
2026; only `expires` was put off to the year 2100. It is never made
anew: another layout is another file and another `layout.FORMAT`, and this one goes when nobody can
have such records any more.
"""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

from headstart.v1 import precompute_pb2 as pb
from headstart_service.api.results.answer import answer_from
from headstart_service.domain import Outcome, RunKey, Status, StepState
from headstart_service.pipeline.registry import Registry
from headstart_service.worker.worker import Worker
from headstart_service.worker.worker_rules import WorkerRules
from tests.contract.backend import Backend
from tests.support.deployments import Deployment
from tests.support.pipelines import CHAIN
from tests.support.requests import chain, results
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

FROZEN: dict[str, Any] = json.loads((Path(__file__).parent / "frozen/layout-4.json").read_text())
ENDED, LOST, QUEUED = (RunKey("default", name) for name in ("ended", "lost", "queued"))
EXPECTED = {ENDED: (2.0, 4.0, 7.0), LOST: (3.0, 6.0, 9.0), QUEUED: (4.0, 8.0, 11.0)}


async def _thaw(valkey: Valkey) -> None:
    async with valkey.client() as client:
        for key, text in FROZEN["strings"].items():
            await client.set(key, text)
        for key, fields in FROZEN["hashes"].items():
            bits = {name: base64.b64decode(value) for name, value in fields.items()}
            await client.hset(key, mapping=bits)
            await client.expire(key, 3600)
        for key, members in FROZEN["zsets"].items():
            await client.zadd(key, members)
        for key, stream in FROZEN["streams"].items():
            for entry, fields in stream["entries"].items():
                await client.xadd(key, fields, id=entry)
            await client.xgroup_create(key, stream["group"], id="0")
            for consumer in stream["pending"].values():
                await client.xreadgroup(stream["group"], consumer, {key: ">"}, count=1)


async def _values(backend: Backend, key: RunKey) -> tuple[float, ...]:
    answer = pb.GetResultsResponse.FromString(answer_from(await backend.store.read(key)).data)
    artifacts = answer.custom.artifacts
    return tuple(json.loads(artifacts[name].json) for name in ("one", "two", "three"))


async def test_records_and_jobs_of_an_earlier_version_are_read_and_run(valkey: Valkey) -> None:
    await _thaw(valkey)
    async with Backend.open(Deployment(valkey.url, (valkey.url,)), 1) as backend:
        assert await _values(backend, ENDED) == EXPECTED[ENDED]
        assert (await backend.store.stats("")).counts == dict.fromkeys(
            (Status.PENDING, Status.IN_PROGRESS, Status.COMPLETED), 1
        )
        lost = await backend.store.status(LOST)
        assert lost.states["one"] is StepState.COMPLETED
        plan = CHAIN.plan({"value": 3}, "inputs")
        joined = await backend.store.start(QUEUED, plan, 60, restart=False)
        assert joined.outcome is Outcome.JOINED, "its digests are computed as they were"
        rules = WorkerRules(name="new", concurrency=4, runs=4, lease=0.5, drain=5)
        worker = Worker(backend.new_queue(lease=0.5), Registry([CHAIN]), {}, rules)
        serving = asyncio.create_task(worker.serve())
        try:
            for key in (LOST, QUEUED):
                await wait_until(lambda key=key: _completed(backend, key))
        finally:
            worker.stop()
            await serving
        for key, expected in EXPECTED.items():
            assert await _values(backend, key) == expected
        assert (await backend.store.status(LOST)).states == dict.fromkeys(
            ("one", "two", "three"), StepState.COMPLETED
        )


async def _completed(backend: Backend, key: RunKey) -> bool:
    return (await backend.store.status(key)).summary.status is Status.COMPLETED


def test_calls_of_an_earlier_client_mean_what_they_meant() -> None:
    calls = {name: base64.b64decode(data) for name, data in FROZEN["calls"].items()}
    assert pb.StartPrecomputeRequest.FromString(calls["StartPrecompute"]) == chain("queued", 3)
    assert pb.GetResultsRequest.FromString(calls["GetResults"]) == results("ended", 1.5, "three")
