"""A store that loses everything: no process answers from what it knew before."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from headstart.v1 import precompute_pb2 as pb
from headstart_service.domain import RunKey
from headstart_service.store.keys import PartitionKeys
from tests.support.pipelines import began
from tests.support.processes import api, stub, worker
from tests.support.replicas import LIGHT
from tests.support.requests import json_of, probe, results
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

_ROUNDS = 10
_READERS = 6


async def test_after_a_reset_readers_of_another_process_get_the_new_inputs_value(
    valkey: Valkey, tmp_path: Path
):
    """Of the store by FLUSHALL, or of one key by a restart over a damaged record.

    Each revision after it is one that the process knows from before it.
    """
    async with AsyncExitStack() as stack:
        first, second = [
            await stack.enter_async_context(stub(address))
            for _, address in [
                await stack.enter_async_context(api(valkey.url, **LIGHT)) for _ in range(2)
            ]
        ]
        await stack.enter_async_context(worker(valkey.url, **LIGHT))
        redis = await stack.enter_async_context(valkey.client())
        for number in range(_ROUNDS):
            key = f"k{number}"
            old, new = tmp_path / f"{number}-old", tmp_path / f"{number}-new"
            old.mkdir()
            new.mkdir()
            await second.StartPrecompute(probe(key, old, 1))
            await wait_until(lambda directory=old: len(began(directory)) == 2)
            # Of every second round the old run has ended, and the first process keeps its answer.
            if number % 2:
                (old / "go").touch()
                await first.GetResults(results(key, 20))
            watch = first.WatchResults(pb.WatchResultsRequest(key=key))
            await watch.read()
            again = probe(key, new, 2)
            if number < _ROUNDS // 2:
                await redis.flushall()
            else:
                await redis.hset(PartitionKeys(0).record(RunKey("default", key)), "about", "?")
                again.restart = True
            started = await second.StartPrecompute(again)
            assert (started.outcome, started.revision) == (pb.START_OUTCOME_STARTED, 1)
            request = results(key, 20, "first")
            request.min_revision = started.revision
            answers = await asyncio.gather(*(first.GetResults(request) for _ in range(_READERS)))
            values = {json_of(answer, "first") for answer in answers}
            assert values == {3}, f"round {number}"
            (new / "go").touch()
            end = await first.GetResults(results(key, 20))
            assert json_of(end, "gated") == 30
            watch.cancel()
            (old / "go").touch()
