"""How often a worker's queue tries again while Redis is away: by a virtual clock."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from headstart_service.domain.errors import StoreUnavailable
from headstart_service.store.job_queue import RedisJobQueue
from headstart_service.store.store_observer import SKIPPED, Unwatched
from headstart_service.store.store_rules import StoreRules
from tests.support.virtual_time import run_virtually

BUDGET = 30.0


class Away(Redis):
    """A client whose server answers everything with this error."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error
        self.asked: list[float] = []

    def register_script(self, script: str) -> Any:
        async def run(keys: Sequence[str], args: Sequence[Any]) -> Any:
            self.asked.append(asyncio.get_running_loop().time())
            raise self.error

        return run


class Tries(Unwatched):
    """Counts failed tries by their kind."""

    def __init__(self) -> None:
        self.of: Counter[str] = Counter()

    def failed(self, command: str, calls: int, error: str) -> None:
        self.of[error] += calls


async def sweep(client: Away, tries: Tries) -> float:
    """Sweep until the queue gives up; returns after how many seconds."""
    rules = StoreRules(partitions=1, max_records=1000, failure_ttl=60.0)
    queue = RedisJobQueue(client, client, rules, lease=15.0, budget=BUDGET, observer=tries)
    began = asyncio.get_running_loop().time()
    with pytest.raises(StoreUnavailable):
        await queue.sweep()
    return asyncio.get_running_loop().time() - began


def test_a_call_is_tried_for_its_whole_budget_and_twice_a_second_at_most() -> None:
    client, tries = Away(RedisConnectionError("refused")), Tries()
    assert BUDGET - 1.0 <= run_virtually(sweep(client, tries)) <= BUDGET
    assert BUDGET <= tries.of.total() <= BUDGET * 2 + 6
    assert len(client.asked) == tries.of.total() - tries.of[SKIPPED]
    assert client.asked[1] <= 0.05, "a short outage costs little"


def test_what_redis_refuses_for_good_is_not_tried_again() -> None:
    client, tries = Away(ResponseError("ERR unknown command 'EVALSHA'")), Tries()
    assert run_virtually(sweep(client, tries)) == 0
    assert len(client.asked) == 1
