"""A watch of a run that goes on ends with the server, and says nothing twice."""

from __future__ import annotations

import signal

from headstart.v1 import precompute_pb2 as pb
from tests.support.processes import api, stub
from tests.support.replicas import LIGHT
from tests.support.requests import noop
from tests.support.valkey import Valkey


async def test_a_server_that_stops_ends_a_watch_and_repeats_nothing(valkey: Valkey):
    async with api(valkey.url, **LIGHT) as (process, address), stub(address) as service:
        await service.StartPrecompute(noop("k"))  # there is no worker: it stays pending
        told = []
        async for message in service.WatchResults(pb.WatchResultsRequest(key="k")):
            told.append(message)
            process.send(signal.SIGTERM)
        assert len(told) == 1
        assert await process.ended() == 0
