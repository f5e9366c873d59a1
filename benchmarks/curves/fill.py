"""Fills a store quickly: the real scripts and what the real client sends, without the client.

A run is started and worked on once through the store and the queue, while every script's keys and
arguments are noted. Then the same commands are sent for each other key, with its name and its
job's ids in their place, many at a time and with Redis's replies off: a million records take the
time that Redis needs for its scripts, and whatever the scripts and their arguments are called, the
records are those that they write.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import Connection

from headstart_service.domain import Job, RunKey
from headstart_service.processes.lifecycle import redis_client
from headstart_service.store.connect import BLOCKING, WORKER, Client
from headstart_service.store.job_queue import RedisJobQueue
from headstart_service.store.redis_store import RedisStore
from headstart_service.store.store_rules import StoreRules

from ..hand import HandWorker
from ..harness import OURS
from ..pipelines import NOOP

_BATCH = 500
_WORKER = "filler"
_MODEL = "model-0000000"
NO_LIMIT = 10_000_000
Value = bytes | str | int | float


@dataclass(frozen=True)
class _Command:
    """A script's call as it went out."""

    sha: str
    keys: Sequence[Value]
    values: Sequence[Value]

    def packed(self, changes: Sequence[tuple[bytes, bytes]]) -> bytes:
        """The same call about something else."""
        parts: list[Value] = ["EVALSHA", self.sha, len(self.keys), *self.keys, *self.values]
        sent = [b"*%d\r\n" % len(parts)]
        for part in parts:
            data = part if isinstance(part, bytes) else str(part).encode()
            for old, new in changes:
                data = data.replace(old, new)
            sent.append(b"$%d\r\n%s\r\n" % (len(data), data))
        return b"".join(sent)


class _Noting:
    """A client that notes which scripts are run, and with what."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.noted: list[_Command] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def register_script(self, text: str) -> Callable[..., Awaitable[Any]]:
        script: Any = self._client.register_script(text)

        async def run(keys: list[Value], args: list[Value]) -> Any:
            self.noted.append(_Command(script.sha, list(keys), list(args)))
            return await script(keys, args)

        return run

    def take(self) -> list[_Command]:
        taken, self.noted = self.noted, []
        return taken


class Filler:
    """Adds runs to a store, numbered from where it stopped."""

    def __init__(
        self,
        redis: Redis,
        queue: RedisJobQueue,
        start: _Command,
        work: Sequence[_Command],
        job: Job,
    ) -> None:
        self._redis = redis
        self._queue = queue
        self._start = start
        self._work = work
        self._job = job
        self.count = 0

    @staticmethod
    def key(number: int) -> str:
        return f"kept-{number:08}"

    async def fill(self, until: int, *, finish: bool, tick: Callable[[float], None]) -> None:
        """Start runs until there are so many; with `finish` they all end, else they stay queued."""
        share = 1 / max(until - self.count, 1)
        async with self._connection() as connection:
            while self.count < until:
                size = min(_BATCH, until - self.count)
                names = [self.key(self.count + number).encode() for number in range(size)]
                model = _MODEL.encode()
                await _send(connection, [self._start.packed([(model, name)]) for name in names])
                if finish:
                    await _send(connection, await self._finishing(size))
                self.count += size
                tick(share * size)

    async def _finishing(self, size: int) -> list[bytes]:
        jobs: list[Job] = []
        while len(jobs) < size:
            jobs += await self._queue.next_jobs(0, _WORKER, size - len(jobs), 5.0)
        packed = []
        for job in jobs:
            changes = [
                (_MODEL.encode(), job.key.key.encode()),
                (self._job.entry.encode(), job.entry.encode()),
            ]
            packed += [command.packed(changes) for command in self._work]
        return packed

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        pool: Any = self._redis.connection_pool
        connection = await pool.get_connection()
        try:
            yield connection
        finally:
            await pool.release(connection)


async def _send(connection: Connection, commands: Sequence[bytes]) -> None:
    """Send commands whose replies nobody needs, and return when they have been carried out."""
    off, on = (
        b"*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n" + way
        for way in (b"$3\r\nOFF\r\n", b"$2\r\nON\r\n")
    )
    await connection.send_packed_command([off, *commands, on])
    await connection.read_response()


@asynccontextmanager
async def filler(redis: Redis, url: str) -> AsyncIterator[Filler]:
    """One for the only partition of the store at `url`, of which `redis` is a client."""
    rules = StoreRules(partitions=1, max_records=NO_LIMIT, failure_ttl=60)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(redis_client(f"{url}?{OURS}", WORKER))
        blocking = await stack.enter_async_context(redis_client(f"{url}?{OURS}", BLOCKING))
        noting: Any = _Noting(client)
        queue = RedisJobQueue(noting, blocking, rules, lease=600, budget=60)
        await queue.prepare_queue()
        store = RedisStore(noting, rules, budget=60, connections=WORKER.connections)
        noting.take()
        await store.start(RunKey("default", _MODEL), NOOP.plan({}, "inputs"), 86_400, restart=False)
        (start,) = noting.take()
        hand = HandWorker(store, queue, {}, _WORKER)
        claim = await hand.claim()
        await hand.finish(claim)
        yield Filler(redis, queue, start, noting.take(), claim.lease.job)
