"""Redis answers, and refuses: a long script, a wrong password, a missing right, a full memory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, cast

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from headstart_service.domain import RunKey, Status
from headstart_service.domain.errors import CapacityExhausted, StoreUnavailable
from headstart_service.processes.lifecycle import wait_for_store
from headstart_service.store import refusals
from headstart_service.store.connect import WORKER, Client, check_version, open_client
from headstart_service.store.refusals import LEAST_RIGHTS
from headstart_service.store.retries import Retries
from tests.contract.backend import Backend, done, plan
from tests.support.deployments import Deployment, least_rights
from tests.support.redis_faults import another_password, busy
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

KEY = RunKey("games", "game-1")
ENDED = [done("first"), done("second")]
Fault = Callable[[Redis], AbstractAsyncContextManager[None]]


@pytest.fixture(autouse=True)
def _forget_what_was_logged() -> None:
    refusals.PROCESS_LOG.clear()


@pytest.fixture
async def admin(valkey: Valkey) -> AsyncIterator[Redis]:
    """A connection of the operator, who gives the store's user no more than it needs."""
    async with valkey.client() as client:
        await client.execute_command("ACL SETUSER operator on >op ~* &* +@all")
        user = ("ACL SETUSER headstart on >s3cret", *least_rights("headstart"))
        await client.execute_command(" ".join(user))
    operator = Redis(host="127.0.0.1", port=valkey.port, username="operator", password="op")
    async with operator as client:
        yield client


@pytest.fixture
async def backend(valkey: Valkey, admin: Redis) -> AsyncIterator[Backend]:
    """The store, as that user."""
    url = valkey.url.replace("//", "//headstart:s3cret@")
    async with Backend.open(Deployment(url, (valkey.url,)), 1) as opened:
        yield opened


@asynccontextmanager
async def no_right(admin: Redis) -> AsyncIterator[None]:
    """The user may write nothing."""
    await admin.execute_command("ACL SETUSER headstart -@write")
    try:
        yield
    finally:
        await admin.execute_command("ACL SETUSER headstart +@all -@admin -@dangerous +info")


FAULTS = [busy, another_password, no_right]


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_worker_outlasts_a_refusal_and_no_try_is_counted(
    backend: Backend, admin: Redis, fault: Fault
) -> None:
    claim = await backend.begin(KEY)
    await backend.start(RunKey("games", "game-2"))
    [job] = await backend.jobs()
    queue = backend.queue
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: queue.claim(job, "w1"),
        lambda: queue.renew([claim.lease], "w1"),
        lambda: queue.commit(claim.lease, ENDED[:1], []),
    ]
    async with fault(admin):
        tasks = [asyncio.ensure_future(call()) for call in calls]
        done_early, _ = await asyncio.wait(tasks, timeout=0.5)
        assert not done_early, [task.exception() for task in done_early]
    claimed, lost, _ = await asyncio.gather(*tasks)
    assert lost == []
    assert claimed is not None
    assert claimed.lease.attempt == 1  # type: ignore[attr-defined]
    await queue.finish(claim.lease, ENDED[1:], Status.COMPLETED, "")
    read = await backend.store.read(KEY)
    assert (read.summary.status, (await backend.record(KEY))[b"tries"]) == (Status.COMPLETED, b"1")


async def test_jobs_taken_over_during_a_refusal_are_not_left_for_another_lease(
    backend: Backend, admin: Redis
) -> None:
    class Refusing:
        """A client that is refused the tickets twice."""

        left = 2

        def __getattr__(self, name: str) -> Any:
            return getattr(backend.raw, name)

        async def hmget(self, *arguments: Any) -> Any:
            if self.left:
                self.left -= 1
                raise ResponseError("BUSY Valkey is busy")
            return await backend.raw.hmget(*arguments)

    await backend.begin(KEY, "lost")
    client = Refusing()
    queue = backend.new_queue(lease=0.001, client=cast("Client", client))
    await asyncio.sleep(0.005)
    assert [job.key for job in await queue.lost_jobs(0, "w2", 1)] == [KEY]
    assert client.left == 0


def _denied(what: str) -> str:
    return f"Redis denies a right (NOPERM): {what}; give the user of HEADSTART_REDIS_URL "


@pytest.mark.promise(
    "The rights that security.md gives suffice; a missing one is named", "`store/refusals`"
)
@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("-xreadgroup", _denied("User headstart has no permissions to run the 'xreadgroup'")[:70]),
        ("resetkeys ~other:*", _denied("No permissions to access a key")),
    ],
    ids=["command", "key"],
)
async def test_a_missing_right_is_reported_with_the_rule_to_add(
    backend: Backend, admin: Redis, caplog: pytest.LogCaptureFixture, rule: str, reason: str
) -> None:
    await backend.queue.prepare_queue()
    await admin.execute_command(f"ACL SETUSER headstart {rule}")
    for _ in range(3):
        with pytest.raises(StoreUnavailable) as raised:
            await backend.queue.next_jobs(0, "w1", 1, 0)
        assert str(raised.value).startswith(reason)
        assert LEAST_RIGHTS in str(raised.value)
    assert len([line for line in caplog.messages if line == str(raised.value)]) == 1


async def test_a_right_that_is_missing_inside_a_script_or_for_a_channel_is_reported(
    backend: Backend, admin: Redis
) -> None:
    await admin.execute_command("ACL SETUSER headstart resetchannels &other:*")
    with pytest.raises(StoreUnavailable) as raised:
        await backend.start(KEY)
    assert str(raised.value).startswith(_denied("No permissions to access a channel"))
    with pytest.raises(StoreUnavailable, match="No permissions to access a channel"):
        await backend.queue.prepare_queue()  # and no job is taken: its script writes first
    with pytest.raises(StoreUnavailable, match="cannot subscribe: Redis denies a right") as raised:
        async with backend.announcements():
            pass
    assert "No permissions to access a channel" in str(raised.value)


async def test_a_wrong_or_missing_password_is_told_and_not_shown(
    valkey: Valkey, admin: Redis
) -> None:
    await admin.config_set("requirepass", "default-password")
    for credentials, reason in (
        ("headstart:wr0ng@", "Redis refuses the user or the password (WRONGPASS)"),
        ("", "Redis asks for a password (NOAUTH)"),
    ):
        client = open_client(valkey.url.replace("//", f"//{credentials}"), WORKER)
        async with client:
            with pytest.raises(StoreUnavailable) as raised:
                await check_version(client)
        assert str(raised.value).startswith(reason)
        assert "HEADSTART_REDIS_URL" in str(raised.value)
        assert "wr0ng" not in str(raised.value)


async def test_a_start_for_which_redis_has_no_memory_is_told_what_is_full(
    backend: Backend, admin: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    await admin.config_set("maxmemory", "1")
    for _ in range(2):
        with pytest.raises(CapacityExhausted, match="Redis' memory is full: raise its maxmemory"):
            await backend.store.start(KEY, plan(), 60, restart=False)
    assert caplog.messages == [refusals.FULL]


async def test_a_command_that_is_wrong_is_not_repeated() -> None:
    calls = 0

    async def call() -> None:
        nonlocal calls
        calls += 1
        raise StoreUnavailable("wrong") from ResponseError("WRONGTYPE Operation against a key")

    with pytest.raises(StoreUnavailable):
        await Retries(10).run(call)
    assert calls == 1


def test_the_reason_of_any_other_error_names_its_kind_alone() -> None:
    error = RedisError("Error 111 connecting to secret-host:6379")
    assert refusals.reason_of(error) == "Redis does not answer: RedisError"


async def test_a_policy_that_evicts_is_told_when_a_process_starts(
    backend: Backend, admin: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    waits: list[str] = []
    await wait_for_store(backend.client(WORKER), waits.append)
    assert caplog.messages == []
    await admin.config_set("maxmemory-policy", "allkeys-lru")
    await wait_for_store(backend.client(WORKER), waits.append)
    [line] = caplog.messages
    assert line.startswith("Redis' maxmemory-policy is allkeys-lru: it may drop records")
    assert waits == ["", ""]


async def test_a_process_that_starts_waits_for_the_right_password_and_logs_why(
    backend: Backend, admin: Redis
) -> None:
    waits: list[str] = []
    async with another_password(admin):
        waiting = asyncio.create_task(wait_for_store(backend.client(WORKER), waits.append))
        await wait_until(lambda: waits)
    await waiting
    assert [reason.partition(":")[0] for reason in waits] == [
        "Redis refuses the user or the password (WRONGPASS)",
        "",
    ]
