"""Random lives of runs, with several workers, against a model small enough to be believed.

The model says what each call must answer and what must then be kept. Leases are 0 s long, so any
worker may take over any run at any time: the worst that can happen between workers.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.internal.conjecture import engine
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from redis import Redis

from headstart_service.domain import (
    Awaits,
    Job,
    Lease,
    Ledger,
    Outcome,
    RunKey,
    RunPlan,
    Status,
    StepRecord,
    StepState,
    StepWork,
)
from headstart_service.domain.errors import (
    CapacityExhausted,
    LastTry,
    LeaseLost,
    RunNotFound,
    StepsReported,
)
from headstart_service.store.job_queue import MAX_TRIES
from headstart_service.store.keys import member
from headstart_service.store.records import step_state
from tests.contract.backend import Backend, spread
from tests.contract.conftest import fixed_keys
from tests.contract.lines import open_steps
from tests.contract.run_model import (
    KEYS,
    LIMITS,
    PARTITIONS,
    PLANS,
    TOOK,
    Place,
    Run,
    Ticket,
    check_bounds,
    victims_for,
)
from tests.support import deployments
from tests.support.deployments import Deployment

LATEST = 2 * TOOK
"""Of the times in which a run is needed, in seconds."""
WORKERS = ["w0", "w1", "w2"]
keys = st.sampled_from(KEYS)
workers = st.sampled_from(WORKERS)
steps = st.sampled_from("ab")

SETTINGS = settings(
    max_examples=25,
    stateful_step_count=50,
    derandomize=True,
    database=None,
    # Not shrinking: from 50 steps that takes minutes. See `shorter`.
    phases=[Phase.generate],
    # One failure at a time, so that all the shrinking is spent on it.
    report_multiple_bugs=False,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

SHRINKING = 30
"""Seconds that Hypothesis may shrink a failure for; its own limit is 300, and it uses them up."""


def shorter(steps: int) -> settings:
    """Settings that find a failure again in shorter lives, and shrink it."""
    phases = [Phase.generate, Phase.shrink]
    most = 100 if steps < SETTINGS.stateful_step_count else SETTINGS.max_examples
    return settings(SETTINGS, max_examples=most, stateful_step_count=steps, phases=phases)


class RunLives(RuleBasedStateMachine):
    """Every rule is one call of the API or of a worker."""

    jobs = Bundle("jobs")
    leases = Bundle("leases")

    def __init__(self, deployment: Deployment, backend: Backend, loop: asyncio.Runner) -> None:
        super().__init__()
        self.now = 0
        deployment.wipe()
        self.deployment, self.backend, self.loop = deployment, backend, loop
        self.store = backend.new_store(**LIMITS)
        self.queue = backend.new_queue(lease=0)
        backend.expected = {"probe": TOOK * 1_000_000}
        self.do(self.queue.prepare_queue())
        self.client = Redis.from_url(deployment.url, protocol=2)
        self.runs: dict[RunKey, Run] = {}
        self.owner: dict[tuple[int, str], str] = {}
        """Of each delivered entry, by partition and id."""
        self.tickets: dict[tuple[int, str], Ticket] = {}
        """Of those of the entries, delivered or not, that were claimed."""
        self.queued: Counter[int] = Counter()
        self.attempts: dict[str, int] = {}
        self.plans: dict[str, RunPlan] = {}
        """Of each run that ever was."""
        self.served: Counter[Outcome] = Counter()
        self.worked = 0
        """Steps that ended, in all runs together."""

    def teardown(self) -> None:
        self.client.close()

    def do(self, call: Any) -> Any:
        self.now += 1
        return self.loop.run(call)

    def partition(self, key: RunKey) -> int:
        return self.backend.keys_of(key).partition

    # Callers.

    @rule(
        key=keys,
        digest=st.sampled_from(list(PLANS)),
        restart=st.booleans(),
        need=st.sampled_from([None, TOOK - 500, LATEST]),
        request=st.sampled_from(["", "r1"]),
    )
    def start(
        self, key: RunKey, digest: str, *, restart: bool, need: int | None, request: str
    ) -> None:
        old = self.runs.get(key)
        call = self.store.start(
            key, PLANS[digest], 1000, restart=restart, request_id=request, needed_in=need
        )
        if old and old.repeats(digest, request):
            answer = self.do(call)
            assert old.request == (request, answer.outcome, answer.revision)
            assert answer.status is old.status
        else:
            self._start(key, digest, call, restart=restart, need=need, request=request)

    def _start(
        self, key: RunKey, digest: str, call: Any, *, restart: bool, need: int | None, request: str
    ) -> None:
        old = self.runs.get(key)
        victims = [] if old else victims_for(key, self.runs)
        if victims is None:
            with pytest.raises(CapacityExhausted):
                self.do(call)
            return
        answer = self.do(call)
        place = Place(0, need or 0, self.now, declared=need is not None)
        for victim in victims:
            del self.runs[victim]
        if old and old.serves(digest) and not restart:
            self.served[answer.outcome] += 1
            if old.status is Status.COMPLETED:
                assert answer.outcome is Outcome.REUSED
                old.read, old.asked_at = False, self.now
                return
            assert answer.outcome is Outcome.JOINED
            if old.waits:
                old.place = old.place.joined(place)
            return
        replaced = old is not None and old.digest != digest
        assert answer.outcome is (Outcome.REPLACED if replaced else Outcome.STARTED)
        new = Run(digest, old.revision + 1 if old else 1, self._run_id(key), place=place)
        assert (answer.status, answer.revision) == (Status.PENDING, new.revision)
        new.request = (request, answer.outcome, new.revision) if request else None
        if old:
            if old.status is Status.IN_PROGRESS:
                self._drop((self.partition(key), old.entry))
            if not restart:
                new.steps = {
                    name: (state, fragment)
                    for name, (state, fragment) in old.steps.items()
                    if state is StepState.COMPLETED
                    and PLANS[old.digest].steps[name] == PLANS[digest].steps[name]
                }
        self.runs[key] = new
        self.plans[new.run] = PLANS[digest]
        self.served[Outcome.STARTED] += 1
        self.queued[self.partition(key)] += 1

    def _drop(self, job: tuple[int, str]) -> None:
        self.owner.pop(job, None)
        self.tickets.pop(job, None)

    def _run_id(self, key: RunKey) -> str:
        return spread(self.client.hgetall(self.backend.keys_of(key).record(key)))[b"run"].decode()

    @rule(key=keys, how=st.sampled_from(["looks", "reads", "waits"]))
    def read(self, key: RunKey, *, how: str) -> None:
        run = self.runs.get(key)
        marks = how != "looks"
        call = (
            self.store.read(key, awaits=Awaits(how == "waits")) if marks else self.store.status(key)
        )
        if run is None:
            with pytest.raises(RunNotFound):
                self.do(call)
            return
        found = self.do(call)
        if how == "waits" and run.waits:
            run.place = run.place.promoted(self.now)
        assert (found.summary.status, found.summary.revision) == (run.status, run.revision)
        assert found.states == {
            name: run.steps[name][0] if name in run.steps else StepState.PENDING for name in "ab"
        }
        if marks:
            run.read = run.read or run.status.ended
            fragments = sorted(fragment for _, fragment in run.steps.values())
            assert sorted(piece + b">" for piece in found.body.split(b">")[:-1]) == fragments
        run.shows_no_result_of_other_inputs()

    @rule(key=keys)
    def cancel(self, key: RunKey) -> None:
        run = self.runs.get(key)
        if run is None:
            with pytest.raises(RunNotFound):
                self.do(self.store.cancel(key))
            return
        answer = self.do(self.store.cancel(key))
        assert answer.cancelled is not run.status.ended
        if answer.cancelled:
            if run.status is Status.IN_PROGRESS:
                self._drop((self.partition(key), run.entry))
            run.end(Status.CANCELLED, self.now)
        assert (answer.status, answer.revision) == (run.status, run.revision)

    # Workers.

    @rule(target=jobs, partition=st.integers(0, PARTITIONS - 1), worker=workers)
    def deliver(self, partition: int, worker: str) -> Any:
        found = self.do(self.queue.next_jobs(partition, worker, 2, 0))
        assert len(found) == min(2, self.queued[partition])
        self.queued[partition] -= len(found)
        for job in found:
            self.owner[partition, job.entry] = worker
        return multiple(*found)

    @rule(target=jobs, partition=st.integers(0, PARTITIONS - 1), worker=workers)
    def reclaim(self, partition: int, worker: str) -> Any:
        found = self.do(self.queue.lost_jobs(partition, worker, 100))
        assert {(partition, job.entry) for job in found} == {
            place for place in self.owner if place[0] == partition
        }
        for job in found:
            self.owner[partition, job.entry] = worker
        return multiple(*found)

    @rule(target=leases, partition=st.integers(0, PARTITIONS - 1), worker=workers)
    def take(self, partition: int, worker: str) -> Any:
        """Deliver and claim, as workers do when nothing comes between."""
        delivered = self.do(self.queue.next_jobs(partition, worker, 1, 0))
        self.queued[partition] -= len(delivered)
        for job in delivered:
            self.owner[partition, job.entry] = worker
            return self._claim(job, worker)
        return multiple()

    @rule(target=leases, partition=st.integers(0, PARTITIONS - 1), worker=workers)
    def take_over(self, partition: int, worker: str) -> Any:
        """Reclaim and claim all that was lost."""
        claimed = []
        for job in self.do(self.queue.lost_jobs(partition, worker, 100)):
            self.owner[partition, job.entry] = worker
            lease = self._claim(job, worker)
            if isinstance(lease, Lease):
                claimed.append(lease)
        return multiple(*claimed)

    @rule(target=leases, job=jobs, worker=workers, alone=st.booleans())
    def claim(self, job: Job, worker: str, *, alone: bool) -> Any:
        """Claim what was delivered some time ago, maybe to another."""
        return self._claim(job, worker, alone=alone)

    def _wanted(self, job: tuple[int, str]) -> RunKey | None:
        """The run that a job is for; None when there is none."""
        ticket = self.tickets.get(job)
        if ticket is None:
            mine = {k: r for k, r in self.runs.items() if r.waits and self.partition(k) == job[0]}
            return min(mine, key=lambda key: self._order(job[0], key, mine[key]), default=None)
        run = self.runs.get(ticket.key)
        its_own = run is not None and run.run == ticket.run
        if its_own and (run.aside or (run.status is Status.IN_PROGRESS and run.entry == job[1])):
            return ticket.key
        return None

    def _order(self, partition: int, key: RunKey, run: Run) -> tuple[Any, ...]:
        """By band, then by the namespace's virtual time, then as the namespace's own runs."""
        band, prefix = run.place.band, f"headstart:{{{partition}}}:"
        with self.client.pipeline(transaction=False) as batch:
            batch.zscore(f"{prefix}waiting:turns:{band}", key.namespace)
            batch.zscore(f"{prefix}waiting:served:{band}", key.namespace)
            batch.hget(f"{prefix}ledger", f"virtual:{band}")
            turn, served, virtual = batch.execute()
        if turn is None:  # it will stand there, once it was passed over
            turn = max(served or 0, float(virtual or 0))
        return (band, turn, key.namespace, run.place.order)

    def _claim(self, job: Job, worker: str, *, alone: bool = True) -> Any:
        place = (job.partition, job.entry)
        call = self.queue.claim(job, worker, alone=alone)
        if self.owner.get(place) != worker:
            assert self.do(call) is None
            return multiple()
        key = self._wanted(place)
        if key is None:
            assert self.do(call) is None
            self._drop(place)
            return multiple()
        run = self.runs[key]
        ticket = Ticket(key, run.run, run.place)
        if run.tries == MAX_TRIES - 1 and not alone:
            with pytest.raises(LastTry):
                self.do(call)
            if place not in self.tickets:
                self.tickets[place], run.aside = ticket, True
            return multiple()
        claim = self.do(call)
        run.stop_steps()
        if run.tries == MAX_TRIES:
            assert claim is None
            self._drop(place)
            run.end(Status.FAILED, self.now)
            return multiple()
        assert claim is not None
        assert (claim.lease.job.key, claim.lease.job.run) == (key, run.run)
        self.tickets[place], run.aside = ticket, False
        assert claim.lease.attempt > self.attempts.get(run.run, 0)
        self.attempts[run.run] = run.attempt = claim.lease.attempt
        run.tries += 1
        run.status, run.entry = Status.IN_PROGRESS, job.entry
        assert claim.revision == run.revision
        assert {n: (r.state, r.fragment) for n, r in claim.ended.items()} == run.steps
        return claim.lease

    def _holder(self, lease: Lease) -> Run | None:
        run = self.runs.get(lease.job.key)
        return run if run and run.holds(lease) else None

    def _record(self, lease: Lease, name: str, state: StepState) -> StepRecord:
        """A step of the plan that the lease's holder believes to run."""
        fragment = f"<{name}={self.plans[lease.job.run].steps[name]} {self.now}>"
        work = StepWork(0.25, 0.125, 3) if state.ended else None
        return StepRecord(name, state, fragment.encode(), work)

    @rule(lease=leases, name=steps, state=st.sampled_from([*StepState][1:4]))
    def commit(self, lease: Lease, name: str, state: StepState) -> None:
        record = self._record(lease, name, state)
        running = state is StepState.RUNNING
        call = self.queue.commit(lease, [] if running else [record], [record] if running else [])
        run = self._holder(lease)
        if run is None:
            with pytest.raises(LeaseLost):
                self.do(call)
            return
        if run.has_ended(name):
            with pytest.raises(StepsReported):
                self.do(call)
            return
        self.do(call)
        self.worked += state.ended
        run.steps[name] = (state, record.fragment)

    @rule(lease=leases, name=steps, status=st.sampled_from([Status.COMPLETED, Status.FAILED]))
    def finish(self, lease: Lease, name: str, status: Status) -> None:
        record = self._record(lease, name, StepState.COMPLETED)
        call = self.queue.finish(lease, [record], status, "why")
        run = self.runs.get(lease.job.key)
        if run and run.holds(lease):
            if run.has_ended(name):
                with pytest.raises(StepsReported):
                    self.do(call)
                return
            self.do(call)
            self.worked += 1
            run.steps[name] = (record.state, record.fragment)
            run.end(status, self.now)
            self._drop((lease.job.partition, lease.job.entry))
        elif run and (run.run, run.attempt, run.status) == (lease.job.run, lease.attempt, status):
            self.do(call)  # its repetition
        else:
            with pytest.raises(LeaseLost):
                self.do(call)

    @rule(lease=leases, worker=workers)
    def renew(self, lease: Lease, worker: str) -> None:
        lost = self.do(self.queue.renew([lease], worker))
        place = (lease.job.partition, lease.job.entry)
        if self._holder(lease) is None:
            assert lost == [lease]
            return
        assert lost == []
        if place in self.owner:
            self.owner[place] = worker

    @rule(lease=leases)
    def release(self, lease: Lease) -> None:
        self.do(self.queue.release(lease))
        run = self._holder(lease)
        if run is not None:
            run.stop_steps()
            run.status = Status.PENDING
            run.tries -= 1
            self._drop((lease.job.partition, lease.job.entry))
            self.queued[lease.job.partition] += 1

    @rule(worker=workers)
    def deregister(self, worker: str) -> None:
        self.do(self.queue.deregister(worker))
        for place in [place for place, owner in self.owner.items() if owner == worker]:
            del self.owner[place]
            self.queued[place[0]] += 1
            ticket = self.tickets.pop(place, None)
            if ticket is not None:
                self._hand_on(place, ticket)

    def _hand_on(self, old: tuple[int, str], ticket: Ticket) -> None:
        """What was claimed for a run is, in a job whose id Redis knows."""
        kept = self.client.hgetall(f"headstart:{{{old[0]}}}:tickets")
        (entry,) = (
            entry.decode()
            for entry, text in kept.items()
            if text.split(b" ")[1].decode() == ticket.run
            and (old[0], entry.decode()) not in self.tickets
        )
        self.tickets[old[0], entry] = ticket
        run = self.runs.get(ticket.key)
        if run and run.run == ticket.run and run.entry == old[1]:
            run.entry = entry

    # What is always true. One invariant, as a failure prints each invariant after each step.

    @invariant()
    def the_store_is_as_the_model_says(self) -> None:
        self.the_records_are_as_the_model_says()
        self.the_statistics_equal_the_records()
        self.the_bound_holds()
        self.what_is_delivered_is_as_the_model_says()
        self.every_run_that_is_not_done_has_its_job()
        self.nothing_lives_for_ever_but_what_must()

    def the_records_are_as_the_model_says(self) -> None:
        with self.client.pipeline(transaction=False) as batch:
            for key in KEYS:
                batch.hgetall(self.backend.keys_of(key).record(key))
            records = map(spread, batch.execute())
        for key, record in zip(KEYS, records, strict=True):
            run = self.runs.get(key)
            assert bool(record) == (run is not None), key
            if run is None:
                continue
            fields = {name.decode(): value for name, value in record.items()}
            kept = {
                name[2:]: (step_state(value), value[1:])
                for name, value in fields.items()
                if name.startswith("s:")
            }
            assert kept == run.steps
            expected = (run.status, run.revision, run.attempt, run.tries, run.digest, run.run)
            names = ("status", "revision", "attempt", "tries", "digest", "run")
            assert tuple(fields[name].decode() for name in names) == tuple(map(str, expected))

    def the_statistics_equal_the_records(self) -> None:
        stats = self.loop.run(self.store.stats(""))
        assert stats.counts == Counter(run.status for run in self.runs.values())
        assert stats.queued_jobs == sum(self.queued.values())
        listed = self.loop.run(self.store.list("", list(Status), None, 100))
        assert {summary.key: summary.status for summary in listed} == {
            key: run.status for key, run in self.runs.items()
        }
        self.every_start_and_every_step_is_counted_once(stats.ledger)

    def every_start_and_every_step_is_counted_once(self, ledger: Ledger | None) -> None:
        lines: dict[str, bytes] = {}
        for partition in range(PARTITIONS):
            found = self.client.hgetall(f"headstart:{{{partition}}}:unsettled")
            lines |= {name.decode(): line for name, line in found.items()}
        live = {member(key) for key, run in self.runs.items() if not run.status.ended}
        assert live <= set(lines) <= {member(key) for key in self.runs}
        if ledger is None:
            assert not self.served
            return
        told = (ledger.starts, ledger.joined, ledger.reused)
        outcomes = (Outcome.STARTED, Outcome.JOINED, Outcome.REUSED)
        assert told == tuple(self.served[outcome] for outcome in outcomes)
        assert ledger.open == len(lines)
        assert sum(work.runs for work in ledger.fates.values()) + len(lines) == ledger.starts
        steps = sum(work.steps for work in ledger.fates.values())
        assert steps + sum(map(open_steps, lines.values())) == self.worked
        assert sum(work.compute for work in ledger.fates.values()) == 0.25 * steps
        assert sum(work.cpu for work in ledger.fates.values()) == 0.125 * steps
        assert sum(work.llm_tokens for work in ledger.fates.values()) == 3 * steps

    def the_bound_holds(self) -> None:
        check_bounds(self.runs)

    def what_is_delivered_is_as_the_model_says(self) -> None:
        for partition in range(PARTITIONS):
            jobs = fixed_keys(partition)[0]
            pending = self.client.xpending_range(jobs, "workers", "-", "+", 1000)
            assert {
                (partition, p["message_id"].decode()): p["consumer"].decode() for p in pending
            } == {place: owner for place, owner in self.owner.items() if place[0] == partition}

    def every_run_that_is_not_done_has_its_job(self) -> None:
        """Or nobody would ever work on it."""
        for partition in range(PARTITIONS):
            waiting, tickets = (
                f"headstart:{{{partition}}}:{name}" for name in ("waiting", "tickets")
            )
            entries = {entry.decode() for entry, _ in self.client.xrange(fixed_keys(partition)[0])}
            mine = {k: r for k, r in self.runs.items() if self.partition(k) == partition}
            pending = {k: r for k, r in mine.items() if r.status is Status.PENDING}
            assert {name.decode() for name in self.client.zrange(waiting, 0, -1)} == {
                member(key) for key in pending
            }
            kept = {
                (partition, entry.decode()): text.split(b" ", 2)[1:]
                for entry, text in self.client.hgetall(tickets).items()
            }
            assert kept == {
                job: [ticket.run.encode(), member(ticket.key).encode()]
                for job, ticket in self.tickets.items()
                if job[0] == partition
            }
            free = self.queued[partition] + sum(job[0] == partition for job in self.owner)
            free -= len(kept)
            assert free >= sum(run.waits for run in pending.values())
            for run in mine.values():
                if run.status is Status.IN_PROGRESS:
                    assert run.entry in entries
                    assert (partition, run.entry) in kept

    def nothing_lives_for_ever_but_what_must(self) -> None:
        fixed = {name for partition in range(PARTITIONS) for name in fixed_keys(partition)}
        names = [name.decode() for name in self.client.scan_iter(count=1000)]
        with self.client.pipeline(transaction=False) as batch:
            for key in names:
                batch.pttl(key)
            ttls = batch.execute()
        for key, ttl in zip(names, ttls, strict=True):
            if key in fixed:
                assert ttl == -1
            else:
                assert 0 < ttl <= 1_800_001 + LATEST * 1000  # rounded up


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployments.standalone(tmp_path_factory.mktemp("machine")) as opened:
        yield opened


def test_random_lives_of_runs_go_as_the_model_says(
    server: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "MAX_SHRINKING_SECONDS", SHRINKING)
    with asyncio.Runner() as loop:
        stack = AsyncExitStack()
        backend = loop.run(stack.enter_async_context(Backend.open(server, PARTITIONS)))

        def live(how: settings) -> None:
            run_state_machine_as_test(lambda: RunLives(server, backend, loop), settings=how)

        try:
            failure = None
            try:
                live(SETTINGS)
            except Exception as error:  # noqa: BLE001  # raised below, unless a shorter one is
                failure = error
            if failure is not None:
                for steps in (5, 10, 20, SETTINGS.stateful_step_count):
                    live(shorter(steps))
                raise failure
        finally:
            loop.run(stack.aclose())
