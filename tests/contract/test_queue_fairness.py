"""Namespaces share the workers by their weights, whatever one of them starts: decision 0048."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import pytest

from headstart_service.domain import Awaits, Claim, Lease, Offer, RunKey, Status
from headstart_service.store.retries import Retries
from headstart_service.store.store_observer import Unwatched
from headstart_service.store.upkeep import Upkeep
from tests.contract.backend import OFFER, TTL, Backend, done, plan
from tests.contract.beside import beside, sweep

SECOND = 1_000_000
OTHER = Offer("other", "v1", {})
BANDS = ("waited for", "by need", "late")
SERVED_FOR = 600.0


async def started(
    backend: Backend, namespace: str, number: int, band: str = "by need", name: str = "key"
) -> list[RunKey]:
    """So many runs of a namespace in one partition, started one after the other."""
    keys = backend.neighbours(number, name=name, namespace=namespace)
    needed_in = 1.0 if band == "late" else None
    store = backend.new_store(max_records=10_000)
    for key in keys:
        await store.start(key, plan(), TTL, restart=False, needed_in=needed_in)
        if band == "waited for":
            await backend.store.read(key, awaits=Awaits.END)
    return keys


async def claimed(backend: Backend, number: int) -> list[Claim]:
    """So many runs in the order in which they are claimed."""
    await backend.queue.prepare_queue()
    jobs = await backend.queue.next_jobs(0, "w1", number, 0)
    claims = [await backend.queue.claim(job, "w1") for job in jobs]
    return [claim for claim in claims if claim]


async def turns(backend: Backend, number: int) -> str:
    """The first letters of the namespaces of so many claims."""
    return "".join(claim.lease.job.key.namespace[0] for claim in await claimed(backend, number))


@pytest.mark.parametrize("band", BANDS)
async def test_a_light_namespace_is_next_but_one_behind_any_flood(
    store_backend: Backend, band: str
) -> None:
    if band == "late":
        store_backend.expected = {"probe": 2 * SECOND}
    await started(store_backend, "flood", 30, band)
    await turns(store_backend, 10)
    await started(store_backend, "light", 1, band)
    assert "l" in await turns(store_backend, 2)


@pytest.mark.parametrize("band", BANDS)
async def test_floods_share_the_workers_by_their_weights(store_backend: Backend, band: str) -> None:
    if band == "late":
        store_backend.expected = {"probe": 2 * SECOND}
    store_backend.weights = {"heavy": 3.0, "*": 1.0}
    for namespace in ("other", "heavy"):
        await started(store_backend, namespace, 40, band)
    counts = Counter(await turns(store_backend, 40))
    assert abs(counts["h"] - 30) <= 1


async def test_a_weight_that_changes_counts_at_the_next_claim(store_backend: Backend) -> None:
    for namespace in ("a", "b"):
        await started(store_backend, namespace, 40)
    assert abs(Counter(await turns(store_backend, 20))["a"] - 10) <= 1
    store_backend.weights = {"a": 9.0}
    assert abs(Counter(await turns(store_backend, 20))["a"] - 18) <= 1


async def test_a_flood_over_a_thousand_keys_gains_nothing(store_backend: Backend) -> None:
    """A run has a key of its own in any case: only the namespace counts."""
    await started(store_backend, "light", 20)
    await started(store_backend, "flood", 1000)
    assert abs(Counter(await turns(store_backend, 30))["f"] - 15) <= 1


async def test_an_idle_namespace_gains_no_credit(store_backend: Backend) -> None:
    await started(store_backend, "busy", 60)
    await started(store_backend, "idle", 1)
    await turns(store_backend, 30)
    await started(store_backend, "idle", 20, name="later")
    assert abs(Counter(await turns(store_backend, 20))["i"] - 10) <= 1


async def test_a_namespace_that_empties_its_queue_pays_what_it_has_had(
    store_backend: Backend,
) -> None:
    """Else starting one run at a time would get past those that queue theirs."""
    store_backend.expected = {"probe": SECOND}
    store_backend.weights = {"slow": 0.1}
    await started(store_backend, "queue", 60)
    order = ""
    for number in range(40):
        if number == 0 or order[-1] == "s":
            await started(store_backend, "slow", 1, name=f"slow-{number}")
        order += await turns(store_backend, 1)
    assert order.count("s") in (4, 5)


async def test_a_namespace_pays_for_the_time_that_its_runs_really_take(
    store_backend: Backend,
) -> None:
    store_backend.expected = {"probe": 1}  # the least that a run costs
    for namespace in ("a", "b"):
        await started(store_backend, namespace, 40)
    claims = await claimed(store_backend, 2)
    long = next(claim for claim in claims if claim.lease.job.key.namespace == "a")
    before = await _turn(store_backend, "a")
    await _make_older(store_backend, long.lease)
    await store_backend.queue.finish(long.lease, [done("first")], Status.COMPLETED, "")
    after = await _turn(store_backend, "a")
    assert 10 * SECOND - 1000 <= after - before < 70 * SECOND
    assert await turns(store_backend, 20) == "b" * 20


async def test_a_run_that_waited_pays_for_its_slot_alone(store_backend: Backend) -> None:
    store_backend.costs = {"probe": SECOND}
    for namespace in ("a", "b"):
        await started(store_backend, namespace, 40)
    ended, cancelled = [claim.lease for claim in await claimed(store_backend, 2)]
    paid = [await _turn(store_backend, lease.job.key.namespace) for lease in (ended, cancelled)]
    for lease in (ended, cancelled):
        await _make_older(store_backend, lease)
    finish = store_backend.queue.finish
    await finish(ended, [done("first")], Status.COMPLETED, "", slot_seconds=0.25)
    await store_backend.store.cancel(cancelled.job.key)
    pays = [await _turn(store_backend, lease.job.key.namespace) for lease in (ended, cancelled)]
    assert pays == [paid[0] - 0.75 * SECOND, paid[1]]


async def _turn(backend: Backend, namespace: str) -> float:
    """The virtual time of a namespace whose runs wait by need."""
    turns_of = beside(backend.all_keys[0], "waiting:turns:1")
    return float(await backend.redis("ZSCORE", turns_of, namespace))


async def _make_older(backend: Backend, lease: Lease) -> None:
    """Change a ticket as if it had been claimed ten seconds ago."""
    tickets = backend.all_keys[0].fixed[10]
    ticket = await backend.redis("HGET", tickets, lease.job.entry)
    about, _, run = ticket.partition(b" ")
    *charge, since = about.split(b",")
    earlier = b",".join((*charge, str(int(since) - 10 * SECOND).encode()))
    await backend.redis("HSET", tickets, lease.job.entry, earlier + b" " + run)


async def test_what_fairness_remembers_is_forgotten(store_backend: Backend) -> None:
    names = store_backend.all_keys[0]
    served = beside(names, "waiting:served:1")
    for namespace in ("a", "b"):
        await started(store_backend, namespace, 3)
    for claim in await claimed(store_backend, 6):
        await store_backend.queue.finish(claim.lease, [done("first")], Status.COMPLETED, "")
    for name in ("waiting:order", "waiting:turns:1"):
        assert await store_backend.redis("EXISTS", beside(names, name)) == 0
    assert 0 < await store_backend.redis("PTTL", served) <= SERVED_FOR * 1000
    # Whose time the band has passed has nothing to pay any more.
    await store_backend.redis("HSET", names.fixed[11], "virtual:1", 2**50)
    await sweep(store_backend, names)
    assert await store_backend.redis("EXISTS", served) == 0


async def test_a_claim_takes_as_many_commands_however_long_the_queue_is(
    store_backend: Backend,
) -> None:
    """Each of them is O(log n)."""
    if store_backend.partitions > 1:
        pytest.skip("the commands of one server are counted")
    for namespace in ("a", "b", "c"):
        await started(store_backend, namespace, 2)
    few = await _commands_of_claims(store_backend, 3)
    for namespace in ("a", "b", "c"):
        await started(store_backend, namespace, 300, name="more")
    for number in range(100):
        await started(store_backend, f"other-{number}", 1)
    assert await _commands_of_claims(store_backend, 3) <= few + 2


async def _commands_of_claims(backend: Backend, number: int) -> float:
    """The commands, also those that scripts send, for each of so many claims."""
    await backend.queue.prepare_queue()
    jobs = await backend.queue.next_jobs(0, "w1", number, 0)
    before = sum((await _calls(backend)).values())
    for job in jobs:
        assert await backend.queue.claim(job, "w1")
    return (sum((await _calls(backend)).values()) - before) / number


async def _calls(backend: Backend) -> Counter[str]:
    stats: Mapping[str, Mapping[str, int]] = await backend.raw.info("commandstats")
    upkeep = ("info", "ping", "client", "hello", "config", "replconf")
    return Counter({n: s["calls"] for n, s in stats.items() if not n[8:].startswith(upkeep)})


class FairQueue:
    """Start-time fair queueing, as simple as it can be: the model."""

    def __init__(self, weights: Mapping[str, float], cost: int) -> None:
        self._weights = weights
        self._cost = cost
        self._virtual = 0.0
        self._till: dict[str, float] = {}
        self._waiting: dict[str, list[RunKey]] = {}

    def start(self, key: RunKey) -> None:
        runs = self._waiting.setdefault(key.namespace, [])
        if not runs:
            self._till[key.namespace] = max(self._till.get(key.namespace, 0), self._virtual)
        runs.append(key)

    def claim(self) -> RunKey | None:
        """The run of the namespace with the least virtual time; the first start decides a tie."""
        there = [name for name, runs in self._waiting.items() if runs]
        if not there:
            return None
        name = min(there, key=lambda name: (self._till[name], name))
        self._virtual = max(self._virtual, self._till[name])
        self._till[name] = self._virtual + -(-self._cost // self._weights[name])
        return self._waiting[name].pop(0)


def _moves(dice: random.Random) -> Iterator[str | None]:
    """Namespaces that start a run, and None for claims: a namespace floods, others come and go."""
    for _ in range(200):
        number = dice.choices((1, 1, 1, 12), k=1)[0]
        namespace = dice.choice("abcd")
        yield from [namespace] * number
        yield from [None] * dice.randrange(6)


@pytest.mark.parametrize("seed", range(3))
async def test_claims_follow_the_model_whatever_is_started(
    store_backend: Backend, seed: int
) -> None:
    dice = random.Random(seed)
    store_backend.weights = {"a": 1.0, "b": 2.0, "c": 0.5, "d": 4.0}
    store_backend.expected = {"probe": SECOND}
    store = store_backend.new_store(max_records=10_000)
    model = FairQueue(store_backend.weights, SECOND)
    keys = {name: iter(store_backend.neighbours(900, namespace=name)) for name in "abcd"}
    expected: list[RunKey | None] = []
    found: list[RunKey | None] = []
    for move in _moves(dice):
        if move is not None:
            key = next(keys[move])
            model.start(key)
            await store.start(key, plan(), TTL, restart=False)
        else:
            expected.append(model.claim())
            found.append(_first(await claimed(store_backend, 1)))
    assert found == expected
    assert len(set(found)) > 100


def _first(claims: Sequence[Claim]) -> RunKey | None:
    return claims[0].lease.job.key if claims else None


async def test_what_is_left_for_other_workers_is_shared_fairly_too(
    store_backend: Backend,
) -> None:
    await started(store_backend, "flood", 20)
    await started(store_backend, "light", 3)
    await store_backend.queue.prepare_queue()
    for job in await store_backend.queue.next_jobs(0, "other", 30, 0):
        assert await store_backend.queue.claim(job, "other", [OTHER]) is None
    jobs = await store_backend.queue.unserved_jobs(0, "w1", [OFFER], 6)
    assert Counter(job.key.namespace for job in jobs) == {"flood": 3, "light": 3}


async def test_a_set_of_a_class_and_its_order_expire_together(store_backend: Backend) -> None:
    await started(store_backend, "flood", 2)
    await store_backend.queue.prepare_queue()
    for job in await store_backend.queue.next_jobs(0, "other", 9, 0):
        await store_backend.queue.claim(job, "other", [OTHER])
    names = store_backend.all_keys[0]
    unserved = beside(names, "unserved:probe@v1")
    parts = [f"{unserved}{part}" for part in ("", ":order", ":turns:1")]
    lives = [await store_backend.redis("PEXPIRETIME", part) for part in parts]
    assert lives[0] > 0
    assert len(set(lives)) == 1
    await store_backend.redis("DEL", *parts[1:])
    assert (await sweep(store_backend, names))[2] == 1

    await Upkeep(store_backend.scripts, Retries(10), Unwatched()).reindex(names)
    assert [await store_backend.redis("PEXPIRETIME", part) for part in parts] == lives
