"""API processes that share a store, and that can be told apart by what they answer."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from tests.support.pipelines import REFERENCES
from tests.support.processes import Process, api

LIGHT = {
    "HEADSTART_BRIDGING": "false",
    "HEADSTART_PIPELINES": REFERENCES,
    "HEADSTART_DRAIN": "1",
}
_FIRST_MARK = 5001


@dataclass(frozen=True)
class Replica:
    """An API process."""

    process: Process
    address: str
    mark: int
    """Its `max_cached`, which no other replica has: an answer of GetStats tells who gave it."""

    @property
    def port(self) -> str:
        return self.address.rpartition(":")[2]


@dataclass
class Replicas:
    """Replicas of one service; each lives as long as the stack, unless it is killed."""

    redis_url: str
    stack: AsyncExitStack
    all: list[Replica] = field(default_factory=list)

    async def add(self, **settings: str) -> Replica:
        mark = _FIRST_MARK + len(self.all)
        own = LIGHT | {"HEADSTART_MAX_CACHED_RESULTS": str(mark)} | settings
        process, address = await self.stack.enter_async_context(api(self.redis_url, **own))
        self.all.append(Replica(process, address, mark))
        return self.all[-1]

    @property
    def alive(self) -> list[Replica]:
        return [replica for replica in self.all if replica.process.alive]

    async def two(self) -> tuple[Replica, Replica]:
        """Two that live; what an earlier test killed is replaced."""
        while len(self.alive) < 2:
            await self.add()
        first, second = self.alive[:2]
        return first, second


def target(*replicas: Replica) -> str:
    """A target of gRPC that stands for all of them."""
    return "ipv4:" + ",".join(replica.address for replica in replicas)
