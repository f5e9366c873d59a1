"""API processes by their number of partitions, and all that a caller can read through one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from headstart.v1 import precompute_pb2 as pb
from tests.support.pipelines import REFERENCES
from tests.support.processes import Service, api, stub
from tests.support.requests import results

LIGHT = {"HEADSTART_BRIDGING": "false", "HEADSTART_PIPELINES": REFERENCES}


def of(partitions: int) -> dict[str, str]:
    """The settings of a light process."""
    return {**LIGHT, "HEADSTART_PARTITIONS": str(partitions)}


@asynccontextmanager
async def served(redis_url: str, partitions: int) -> AsyncIterator[Service]:
    """The stub of an API process of its own."""
    async with api(redis_url, **of(partitions)) as (_, address), stub(address) as service:
        yield service


async def answers(service: Service, keys: Sequence[str]) -> list[bytes]:
    """What GetResults gives for each key."""
    found = await asyncio.gather(*(service.GetResults(results(key), timeout=20) for key in keys))
    return [each.SerializeToString(deterministic=True) for each in found]


async def listed(service: Service) -> list[str]:
    """All keys, in small pages."""
    found: list[str] = []
    token = ""
    while True:
        page = await service.ListPrecomputes(
            pb.ListPrecomputesRequest(page_size=50, page_token=token), timeout=20
        )
        found += [each.key for each in page.precomputes]
        token = page.next_page_token
        if not token:
            return found
