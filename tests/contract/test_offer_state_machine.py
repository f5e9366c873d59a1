"""Random lives of runs among workers of two definitions and three kinds of makers.

Each result names what made it, and the one that it was made of. So whatever is read shows by itself
whether one answer is mixed, and whether a start was given what workers of today would not make.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
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
    Claim,
    Job,
    Offer,
    Outcome,
    RunKey,
    RunPlan,
    Status,
)
from headstart_service.domain.errors import LeaseLost, RunNotFound, StepsReported
from headstart_service.store.keys import member
from tests.contract.backend import Backend, done, plan, spread
from tests.support import deployments
from tests.support.deployments import Deployment

SETTINGS = settings(
    max_examples=30,
    stateful_step_count=50,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
KEYS = [RunKey("games", "1"), RunKey("games", "2")]


def _offer(definition: str, first: str, second: str) -> Offer:
    return Offer("probe", definition, {"first": first, "second": second})


WORKERS = {
    "a": _offer("v1", "A", "A"),
    "b": _offer("v1", "B", "B"),
    "half": _offer("v1", "A", "H"),
    "new": _offer("v2", "A", "A"),
}
"""`half` has another provider than `a` for the second step alone."""
keys = st.sampled_from(KEYS)
workers = st.sampled_from(list(WORKERS))
definitions = st.sampled_from(["v1", "v2"])


def wanted(definition: str, inputs: int) -> RunPlan:
    """Other inputs change the second step alone."""
    steps = {"first": f"{definition}-f", "second": f"{definition}-s{inputs}"}
    return replace(plan(f"{definition}-d{inputs}", steps), definition=definition)


def first_by(definition: str, maker: str) -> str:
    return f"<first {definition} {maker}>"


def second_by(definition: str, inputs: int, maker: str, first: str) -> str:
    return f"<second {definition} {inputs} {maker} of {first[1:]}"


def maker_of(fragment: str) -> str:
    """The maker of a first or second step's result; 'caller' if that was reported."""
    words = fragment.split()
    return words[2 if words[0] == "<first" else 3].rstrip(">")


@dataclass(eq=False)
class Holding:
    """A claim, and what its worker knows of the run."""

    claim: Claim
    offer: Offer
    inputs: int
    known: dict[str, str]


@dataclass(frozen=True)
class Seen:
    """What a caller has read of a run."""

    key: RunKey
    definition: str
    inputs: int
    revision: int
    first: str


class OfferLives(RuleBasedStateMachine):
    """Every rule is one call of the API or of a worker."""

    holdings = Bundle("holdings")
    seen = Bundle("seen")

    def __init__(self, deployment: Deployment, backend: Backend, loop: asyncio.Runner) -> None:
        super().__init__()
        deployment.wipe()
        self.loop, self.store = loop, backend.new_store()
        self.queue = backend.new_queue(lease=0)
        self.lasting = backend.new_queue(lease=600)
        self.keys = backend.keys_of
        self.do(self.queue.prepare_queue())
        self.client = Redis.from_url(deployment.url, protocol=2)
        self.offering: set[str] = set()
        self.last: set[str] | None = None
        """Who offered the pipeline last; None when nobody ever did."""
        self.holders: dict[str, Offer] = {}
        """Of each run, what its last worker offered."""

    def teardown(self) -> None:
        try:
            self._every_run_ends()
        finally:
            self.client.close()

    def do(self, call: Any) -> Any:
        return self.loop.run(call)

    def record(self, key: RunKey) -> tuple[dict[str, str], dict[str, str]]:
        """The fields of its line, and its steps' results."""
        found = spread(self.client.hgetall(self.keys(key).record(key)))
        fields = {name.decode(): value.decode() for name, value in found.items()}
        steps = {name[2:]: value[1:] for name, value in fields.items() if name[:2] == "s:"}
        return fields, steps

    def _today(self, definition: str) -> list[Offer] | None:
        names = self.offering or self.last
        if names is None:
            return None
        return [WORKERS[name] for name in names if WORKERS[name].definition == definition]

    def _made_today(self, definition: str, steps: dict[str, str], holder: Offer | None) -> bool:
        """Whether one worker of today makes all of this, and what `holder` will make beside it."""
        today = self._today(definition)
        makers = dict(holder.makers) if holder else {}
        makers |= {name: maker_of(fragment) for name, fragment in steps.items()}
        return today is None or any(
            all(maker in ("caller", offer.makers[name]) for name, maker in makers.items())
            for offer in today
        )

    # Workers.

    @rule(worker=workers)
    def come(self, worker: str) -> None:
        self.do(self.lasting.offer(0, worker, [WORKERS[worker]]))
        self.offering.add(worker)
        self.last = set(self.offering)

    @rule(worker=workers)
    def go(self, worker: str) -> None:
        """Its leases are of 0 s, so what it holds is lost at once, or handed on."""
        self.do(self.queue.deregister(worker))
        self.offering.discard(worker)
        self.last = set(self.offering) or self.last

    @rule(target=holdings, worker=workers, how=st.sampled_from(["next", "lost", "unserved"]))
    def take(self, worker: str, how: str) -> Any:
        return multiple(*self._take(worker, how))

    @rule(worker=workers, how=st.sampled_from(["next", "lost", "unserved"]))
    def fetch(self, worker: str, how: str) -> None:
        """A worker that dies before it claims."""
        self._jobs(worker, how)

    def _jobs(self, worker: str, how: str) -> Sequence[Job]:
        if how == "next":
            found = self.do(self.queue.next_jobs(0, worker, 1, 0))
        elif how == "lost":
            found = self.do(self.queue.lost_jobs(0, worker, 1))
        else:
            found = self.do(self.queue.unserved_jobs(0, worker, [WORKERS[worker]], 1))
        assert len(found) <= 1
        return found  # type: ignore[no-any-return]

    def _take(self, worker: str, how: str) -> Iterator[Holding]:
        offer = WORKERS[worker]
        for job in self._jobs(worker, how):
            before = {key: self.record(key)[1] for key in KEYS}
            claim = self.do(self.queue.claim(job, worker, [offer]))
            if claim is None:
                continue
            fields, steps = self.record(claim.lease.job.key)
            self.holders[fields["run"]] = offer
            assert fields["definition"] == offer.definition
            known = {name: ended.fragment.decode() for name, ended in claim.ended.items()}
            assert known == steps
            assert known == self._of_its_own(before[claim.lease.job.key], offer)
            yield Holding(claim, offer, int(fields["digest"][-1]), known)

    @staticmethod
    def _of_its_own(steps: dict[str, str], offer: Offer) -> dict[str, str]:
        """What a worker goes on with: a caller's step, too, if that was made of such a one."""
        found: dict[str, str] = {}
        for name in ("first", "second"):
            own = name in steps and maker_of(steps[name]) in ("caller", offer.makers[name])
            if own and (name == "first" or "first" in found):
                found[name] = steps[name]
        return found

    @rule(holding=holdings)
    def commit(self, holding: Holding) -> None:
        """The worker makes the next step of the run, or ends it."""
        name = "second" if "first" in holding.known else "first"
        if "second" in holding.known:
            with suppress(LeaseLost):
                self.do(self.queue.finish(holding.claim.lease, [], Status.COMPLETED, ""))
            return
        made = self._made(holding, name)
        try:
            self.do(self.queue.commit(holding.claim.lease, [done(name, made.encode())], []))
        except LeaseLost:
            return
        except StepsReported as taken:
            holding.known = {r.name: r.fragment.decode() for r in taken.records} | {
                name: fragment for name, fragment in holding.known.items() if name == "first"
            }
            return
        holding.known[name] = made

    def _made(self, holding: Holding, name: str) -> str:
        definition, makers = holding.offer.definition, holding.offer.makers
        if name == "first":
            return first_by(definition, makers[name])
        return second_by(definition, holding.inputs, makers[name], holding.known["first"])

    @rule(holding=holdings)
    def release(self, holding: Holding) -> None:
        self.do(self.queue.release(holding.claim.lease))

    # Callers.

    @rule(key=keys, definition=definitions, inputs=st.sampled_from([0, 0, 1]))
    def start(self, key: RunKey, definition: str, inputs: int) -> None:
        old, before = self.record(key)
        status, digest = old.get("status"), old.get("digest")
        new = wanted(definition, inputs)
        holder = self.holders[old["run"]] if status == "in_progress" else None
        started = self.do(self.store.start(key, new, 1000, restart=False))
        fields, steps = self.record(key)
        if digest != new.digest:
            expected = Outcome.REPLACED if old else Outcome.STARTED
        elif status == "pending":
            expected = Outcome.JOINED
        elif status == "in_progress":
            today = self._made_today(definition, before, holder)
            expected = Outcome.JOINED if today else Outcome.STARTED
        elif status == "completed" and self._made_today(definition, before, None):
            expected = Outcome.REUSED
        else:
            expected = Outcome.STARTED
        assert started.outcome is expected
        assert started.revision == int(fields["revision"])
        offers = self._today(definition)
        for name, fragment in steps.items():
            makers = None if offers is None else {offer.makers[name] for offer in offers}
            assert makers is None or maker_of(fragment) in {"caller", *makers}

    @rule(target=seen, key=keys)
    def read(self, key: RunKey) -> Any:
        fields, steps = self.record(key)
        if "first" not in steps:
            return multiple()
        inputs, revision = int(fields["digest"][-1]), int(fields["revision"])
        return Seen(key, fields["definition"], inputs, revision, steps["first"])

    @rule(seen=seen)
    def report_second(self, seen: Seen) -> None:
        """A caller has made it of the first one that it has read."""
        fragment = second_by(seen.definition, seen.inputs, "caller", seen.first)
        self._report(seen.key, seen.revision, seen.definition, ["first"], "second", fragment)

    @rule(key=keys)
    def report_first(self, key: RunKey) -> None:
        fields, _ = self.record(key)
        if fields:
            definition, revision = fields["definition"], int(fields["revision"])
            fragment = first_by(definition, "caller")
            self._report(key, revision, definition, [], "first", fragment)

    def _report(
        self, key: RunKey, revision: int, definition: str, needs: list[str], *step: str
    ) -> None:
        name, fragment = step
        record = done(name, fragment.encode())
        fields, _ = self.record(key)
        run = fields["run"] if fields else "gone"
        with suppress(RunNotFound):
            self.do(self.store.report(key, run, revision, f"probe@{definition}", needs, record))

    @rule(definition=definitions)
    def adopt(self, definition: str) -> None:
        for orphan in self.do(self.store.orphans([f"probe@{definition}"], 0, 9)):
            fields, _ = self.record(orphan.key)
            offered = {WORKERS[name].definition for name in self.offering}
            assert fields["definition"] not in offered
            assert definition in offered
            self.do(self.store.adopt(orphan, wanted(definition, int(fields["digest"][-1]))))
            fields, steps = self.record(orphan.key)
            assert (fields["definition"], steps) == (definition, {})

    # What holds at any time.

    @invariant()
    def no_answer_is_mixed(self) -> None:
        for key in KEYS:
            fields, steps = self.record(key)
            for fragment in steps.values():
                assert fragment.split()[1] == fields["definition"]
            if "second" in steps:
                assert steps["second"].endswith(f" of {steps['first'][1:]}"), steps
                pair = (maker_of(steps["first"]), maker_of(steps["second"]))
                assert "caller" in pair or pair in {
                    (offer.makers["first"], offer.makers["second"]) for offer in WORKERS.values()
                }

    @invariant()
    def every_run_that_has_not_ended_stands_in_one_place(self) -> None:
        prefix = "headstart:{0}:"
        stand: list[bytes] = []
        for name in self.client.keys(f"{prefix}unserved:*"):
            if name.count(b":") > 3:
                continue  # its order and its turns
            found = self.client.zrange(name, 0, -1)
            stand += found
            assert self.client.hexists(f"{prefix}unserved", name.decode().split(":")[-1])
        waiting = self.client.zrange(f"{prefix}waiting", 0, -1, withscores=True)
        stand += [name for name, _ in waiting]
        tickets = self.client.hgetall(f"{prefix}tickets")
        bound = {text.split(b" ", 2)[2] for text in tickets.values()}
        pending = {member(key).encode() for key in KEYS if self._status(key) == "pending"}
        assert sorted(stand) == sorted(pending)
        assert {name for name, score in waiting if score == float("inf")} <= bound
        entries = {entry for entry, _ in self.client.xrange(f"{prefix}jobs")}
        assert set(tickets) <= entries
        # Others than those that were delivered and dropped are for any run.
        assert len(entries - set(tickets)) >= sum(score < float("inf") for _, score in waiting)
        for key in KEYS:
            if self._status(key) == "in_progress":
                assert self.record(key)[0]["entry"].encode() in tickets

    def _status(self, key: RunKey) -> str | None:
        return self.record(key)[0].get("status")

    def _every_run_ends(self) -> None:
        for worker in WORKERS:
            self.come(worker)
        for _ in range(20):
            if all(self._status(key) in (None, "completed", "failed") for key in KEYS):
                break
            for worker in WORKERS:
                for how in ("next", "lost", "unserved"):
                    for holding in self._take(worker, how):
                        for _ in range(4):
                            self.commit(holding)
        for key in KEYS:
            fields, _ = self.record(key)
            assert fields.get("status") in (None, "completed", "failed"), fields
            assert fields.get("error", "") in ("", "worker lost")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployments.standalone(tmp_path_factory.mktemp("machine")) as opened:
        yield opened


def test_no_answer_is_mixed_whichever_workers_come_and_go(server: Deployment) -> None:
    with asyncio.Runner() as loop:
        stack = AsyncExitStack()
        backend = loop.run(stack.enter_async_context(Backend.open(server, 1)))
        try:
            run_state_machine_as_test(lambda: OfferLives(server, backend, loop), settings=SETTINGS)
        finally:
            loop.run(stack.aclose())
