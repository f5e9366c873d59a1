"""Records in Redis that were tampered with: an error of their key, and no harm to any other."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import grpc
import pytest
from redis.asyncio import Redis

from headstart.v1 import precompute_pb2 as pb
from headstart_service.domain import RunKey
from headstart_service.store.keys import FIXED, PartitionKeys, member
from tests.fuzz import budget
from tests.fuzz.victim import ALLOWED, Call, Victim
from tests.fuzz.wire import mutated
from tests.support.requests import chain, noop

_TOGETHER = 50
_ALLOWED = ALLOWED | {grpc.StatusCode.DATA_LOSS}
_NUMBERS = [b"0", b"-1", b"nan", b"inf", b"1e400", b"0x10", b"9" * 16, b"9" * 17, b"1.5", b"-", b""]
Tamper = Callable[[Redis, str, random.Random], Awaitable[object]]


async def _mutate_a_field(client: Redis, record: str, dice: random.Random) -> None:
    fields = await client.hgetall(record)
    if fields:
        name = dice.choice(sorted(fields))
        await client.hset(record, name, mutated(fields[name], dice))


async def _change_a_word(client: Redis, record: str, dice: random.Random) -> None:
    words = (await client.hget(record, "about") or b"").split(b" ")
    words[dice.randrange(len(words))] = dice.choice([*_NUMBERS, dice.randbytes(5), b"completed"])
    await client.hset(record, "about", b" ".join(words))


async def _remove_a_field(client: Redis, record: str, dice: random.Random) -> None:
    if fields := await client.hkeys(record):
        await client.hdel(record, dice.choice(sorted(fields)))


async def _add_a_field(client: Redis, record: str, dice: random.Random) -> None:
    name = dice.choice((b"s:", b"s:one", b"s:\xff", b"s:nothing", dice.randbytes(4)))
    await client.hset(record, name, dice.choice(b"PRCFSX\x00".decode()) + "x" * dice.randint(0, 3))


async def _change_the_type(client: Redis, record: str, dice: random.Random) -> None:
    await client.unlink(record)
    match dice.randrange(5):
        case 0:
            await client.set(record, dice.randbytes(20))
        case 1:
            await client.rpush(record, "x")
        case 2:
            await client.zadd(record, {"x": 1})
        case 3:
            await client.xadd(record, {"about": "x"})
        case _:
            await client.hset(record, "x", "y")
    await client.pexpire(record, 60_000)


_TAMPER: tuple[Tamper, ...] = (
    *(_mutate_a_field, _mutate_a_field, _change_a_word, _change_a_word),
    *(_remove_a_field, _add_a_field, _change_the_type),
)


def _calls(key: str, dice: random.Random) -> list[Call]:
    """What may be asked of a key, in any order."""
    anew, later = noop(key, 1), noop(key, dice.randrange(3))
    anew.restart = dice.random() < 0.3
    calls: list[Call] = [
        ("GetResults", pb.GetResultsRequest(key=key).SerializeToString()),
        ("GetStatus", pb.GetStatusRequest(key=key).SerializeToString()),
        ("StartPrecompute", anew.SerializeToString()),
        ("StartPrecompute", later.SerializeToString()),
        ("CancelPrecompute", pb.CancelPrecomputeRequest(key=key).SerializeToString()),
        ("ListPrecomputes", pb.ListPrecomputesRequest(page_size=7).SerializeToString()),
        ("GetStats", b""),
    ]
    if dice.random() < 0.1:
        calls.append(("WatchResults", pb.WatchResultsRequest(key=key).SerializeToString()))
    return dice.sample(calls, 4)


@pytest.mark.promise("No change of records by others harms another run", "fuzzing")
def test_tampering_with_records_harms_no_other_run(victim: Victim):
    dice = budget.dice("records")
    control = pb.GetResultsRequest(key="control", required_steps=["nothing"])
    control.wait.seconds = 4
    left = budget.cases(300, 6_000)
    while left > 0:
        keys = [f"t{number}" for number in range(min(left, _TOGETHER))]
        starts = [dice.choice((noop, chain))(key, 1) for key in (*keys, "control")]
        for start in starts:
            start.restart = True
        starts[-1] = noop("control")
        victim.call_all([("StartPrecompute", start.SerializeToString()) for start in starts])
        victim.run(_tamper(victim, keys, dice))
        victim.call_all([call for key in keys for call in _calls(key, dice)], _ALLOWED)
        codes = victim.call_all([("GetResults", control.SerializeToString())])
        assert codes == [grpc.StatusCode.OK]
        budget.count("records", len(keys))
        left -= len(keys)
    victim.is_well()


async def _tamper(victim: Victim, keys: list[str], dice: random.Random) -> None:
    """With each of these at another moment of its life: queued, running or ended."""
    async with victim.valkey.client() as client:
        for key in keys:
            record = PartitionKeys(0).record(RunKey("default", key))
            await dice.choice(_TAMPER)(client, record, dice)
        await client.xadd(PartitionKeys(0).jobs, {dice.randbytes(3): dice.randbytes(3)})
        strange = member(RunKey("default", "t")).encode() + dice.randbytes(2)
        await client.zadd(PartitionKeys(0).fixed[FIXED.index("status:cancelled")], {strange: 0})
