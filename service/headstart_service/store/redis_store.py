"""The store for the API: start, read, cancel, list and count runs in Redis."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

from redis.asyncio import RedisCluster

from ..base.metric_labels import Eviction
from ..domain import (
    Awaits,
    Cancelled,
    ExpectedRuns,
    Inspection,
    Orphan,
    Outcome,
    Report,
    RunKey,
    RunPlan,
    RunsPage,
    RunSummary,
    Snapshot,
    Started,
    Stats,
    Status,
    StepRecord,
    Touched,
    WorkerState,
)
from ..domain.errors import CapacityExhausted, RecordDamaged, RunNotFound
from ..domain.retry_after import retry_after
from .batches import Reply, ScriptBatches
from .claim_order import encode_expected
from .connect import Client
from .keys import PartitionKeys, new_process, partition_of
from .large_reads import LARGE, LargeReads
from .layout import StoreLayout
from .orphans import OrphanRuns
from .partials import PartialReader
from .records import (
    decode_large_snapshot,
    decode_snapshot,
    encode_plan_steps,
    encode_step_value,
    step_state,
)
from .run_ids import run_ids
from .run_listing import RunListing
from .scripts import SOURCES, Scripts
from .store_observer import StoreObserver, Unwatched
from .store_rules import GONE_AFTER, LIVE_PATIENCE, StoreRules
from .worker_registry import worker_from

_EVICTIONS = tuple(Eviction)
"""In the order in which start.lua counts them."""
_SIZE = b"size"
"""The first field of read.lua's reply for a large record."""
_UNREADABLE = 0
"""The reply of inspect.lua for a damaged record."""
_PATIENCE_US = round(LIVE_PATIENCE * 1e6)


class RedisStore:
    """Runs in Redis. Every method raises StoreUnavailable when Redis does not answer in time.

    Methods for one key raise RecordDamaged when its record is damaged; only a start with `restart`
    overwrites it. A list leaves it out.
    """

    def __init__(
        self,
        client: Client,
        rules: StoreRules,
        *,
        budget: float,
        connections: int,
        observer: StoreObserver | None = None,
        large: Client | None = None,
        clock: Callable[[], float] = time.monotonic,
        expected: ExpectedRuns = dict,
    ) -> None:
        """Give up on Redis `budget` seconds after a call's turn has come.

        Records of megabytes are read on the client `large`, whose time-outs allow for them; `clock`
        measures the seconds of such a read. Starts compare their need with what is `expected`.
        """
        self._observer = observer or Unwatched()
        self.layout = StoreLayout(client, rules.partitions, rules.prefix)
        self._batches = ScriptBatches(
            client,
            SOURCES,
            budget=budget,
            connections=connections,
            layout=self.layout,
            observer=self._observer,
        )
        self._scripts = Scripts(self._batches)
        self._large = LargeReads(large or client, budget=budget, observer=self._observer)
        self._rules = rules
        self._clock = clock
        self._process = new_process()
        self.read_partials = PartialReader(self._batches, self._keys, self._process).read
        self._in_cluster = isinstance(client, RedisCluster)
        self._partitions = rules.keys(client)
        self._orphans = OrphanRuns(self._scripts, self._partitions, self._process)
        self._listing = RunListing(self._scripts, self._partitions, self._observer)
        self._expected = expected
        self._run_ids = run_ids()

    async def aclose(self) -> None:
        """End what is under way for callers that have gone; the client is its opener's to close."""
        await self._batches.aclose()

    @property
    def channels(self) -> list[str]:
        """The channels of what is announced to this process."""
        return [channel for channels in self._channels() for channel in channels]

    @property
    def sections(self) -> list[list[str]]:
        """These channels in groups that fail by themselves: in a cluster one for each partition."""
        return self._channels() if self._in_cluster else [self.channels]

    def section(self, key: RunKey) -> int:
        """Return the index among `sections` of the one that announces this run."""
        return partition_of(key, self._rules.partitions) if self._in_cluster else 0

    def _channels(self) -> list[list[str]]:
        return [[keys.events_of(self._process), keys.resets] for keys in self._partitions]

    @property
    def unreachable(self) -> int:
        """The number of partitions whose server is known to be away: no call is sent there."""
        return self._batches.unreachable

    async def ping(self) -> None:
        """Return if every partition can be read and written.

        Raises CapacityExhausted when Redis has no memory for starts; all else goes on then.
        """
        for keys in self._partitions:
            await self._scripts.ping(keys, None)

    async def prepare(self) -> None:
        """Create missing consumer groups.

        Workers do so too, but an autoscaler that starts workers by a group's lag needs it first.
        """
        for keys in self._partitions:
            await self._scripts.prepare(keys, None, idle_ms=round(GONE_AFTER * 1000))

    async def start(
        self,
        key: RunKey,
        plan: RunPlan,
        ttl: float,
        *,
        restart: bool,
        request_id: str = "",
        trace: str = "",
        needed_in: float | None = None,
    ) -> Started:
        """Start, join or reuse the run, which is needed in `needed_in` seconds; None means now.

        If the start that made the run had this `request_id`, this is a repetition. It changes
        nothing, and returns the outcome and the revision that the start had.
        Raises CapacityExhausted when nothing can make room.
        """
        keys, rules = self._keys(key), self._rules
        if not rules.by_need:
            needed_in = None
        reply = await self._scripts.start(
            keys,
            key,
            *((trace,) if trace else ()),
            run_id=next(self._run_ids),
            pipeline=plan.pipeline,
            definition=plan.definition,
            digest=plan.digest,
            steps=encode_plan_steps(plan),
            settling=",".join(plan.settling),
            inputs=plan.inputs,
            ttl_us=round(ttl * 1e6),
            patience_us=round((LIVE_PATIENCE + (needed_in or 0)) * 1e6),
            failure_ttl_us=round(rules.failure_ttl * 1e6),
            need_us=-1 if needed_in is None else round(needed_in * 1e6),
            expected=encode_expected(self._expected()),
            restart=int(restart),
            request_id=request_id,
            max_records=rules.share(rules.max_records, keys.partition),
            max_live=rules.share(rules.max_live, keys.partition),
            namespace_max=rules.share(rules.namespace_max, keys.partition),
        )
        if reply[0] == b"full":
            if reply[3]:
                self._observer.evicted(Eviction.EXPIRED, reply[3])
            live, _, ended, measured_us = map(int, reply[2:])
            delay = retry_after(live, ended, measured_us / 1e6)
            raise CapacityExhausted(rules.refusal(reply[1], key.namespace), delay)
        outcome, status, revision, *rest = reply
        gone, (shed, *carried) = rest[: len(_EVICTIONS)], rest[len(_EVICTIONS) :]
        if shed:
            self._observer.shed(shed)
        for kind, runs in zip(_EVICTIONS, gone, strict=True):
            if runs:
                self._observer.evicted(kind, runs)
        trace = carried[0].decode(errors="replace") if carried and carried[0] else ""
        return Started(Outcome(outcome.decode()), Status(status.decode()), int(revision), trace)

    async def read(
        self,
        key: RunKey,
        *,
        awaits: Awaits = Awaits.NOTHING,
        required: AbstractSet[str] = frozenset(),
    ) -> Snapshot:
        """Return the run with all its results, as `RunStore.read` does. Raises RunNotFound."""
        keys = self._keys(key)
        reply = await self._scripts.read(
            keys,
            key,
            awaits=int(awaits),
            required=",".join(sorted(required)),
            by_need=int(self._rules.by_need),
            process=self._process,
            large=LARGE,
        )
        if not reply or reply[1] != _SIZE:
            return self._snapshot(key, reply)
        began = self._clock()
        record = await self._large.read(keys.record(key), reply[2])
        found = self._snapshot(key, reply, record, self._clock() - began)
        if f" {found.run} ".encode() not in reply[4]:
            # Started anew between the two reads: the new record does not name this process yet.
            return await self.read(key, awaits=awaits, required=required)
        return found

    async def inspect(self, key: RunKey, *, largest: int = 0) -> Inspection:
        """Return the run without counting a read or a damage. Raises RunNotFound.

        With `largest` at most so many bytes of fragments are read: the largest are left out.
        """
        reply = await self._scripts.inspect(self._keys(key), key, largest=largest)
        if reply == _UNREADABLE:
            raise RecordDamaged(str(key))
        if not reply:
            raise RunNotFound(key.namespace, key.key)
        left, worker, attempt, *fields = reply
        try:
            snapshot = decode_snapshot(key, left, fields)
        except (ValueError, LookupError) as error:
            raise RecordDamaged(str(key)) from error
        return Inspection(snapshot, attempt, worker.decode(errors="replace"))

    async def workers(self, limit: int) -> list[WorkerState]:
        """Return the last reported state of up to `limit` workers, by name."""
        keys = self._partitions[0]
        rows = await self._scripts.workers(keys, None, registry=keys.workers, limit=limit)
        found = [state for row in rows if (state := worker_from(row)) is not None]
        return sorted(found, key=lambda state: state.name)

    async def status(self, key: RunKey) -> Snapshot:
        """Return the run without its results: `body` is empty. Raises RunNotFound."""
        return self._snapshot(key, await self._scripts.status(self._keys(key), key))

    async def cancel(self, key: RunKey, revision: int = 0) -> Cancelled:
        """End the run if it has not ended, and has this revision; 0 is any. Raises RunNotFound."""
        ttl_us = round(self._rules.failure_ttl * 1e6)
        keys = self._keys(key)
        reply = await self._scripts.cancel(keys, key, revision=revision, failure_ttl_us=ttl_us)
        if not reply:
            raise RunNotFound(key.namespace, key.key)
        return Cancelled(bool(reply[0]), Status(reply[1].decode()), int(reply[2]))

    async def delete(self, key: RunKey, revision: int = 0) -> bool:
        """Delete the run if it has this revision; 0 is any. Return whether there was one."""
        keys = self._keys(key)
        return bool(await self._scripts.delete(keys, key, revision=revision))

    async def touch(self, key: RunKey, ttl: float, revision: int = 0) -> Touched:
        """Let the run live for `ttl` seconds after now and its end. Raises RunNotFound."""
        reply = await self._scripts.touch(
            self._keys(key),
            key,
            ttl_us=round(ttl * 1e6),
            patience_us=_PATIENCE_US,
            revision=revision,
        )
        if not reply:
            wanted = f" revision {revision}" if revision else ""
            raise RunNotFound(key.namespace, f"{key.key}{wanted}")
        status, found, expires_us = reply
        return Touched(Status(status.decode()), int(found), int(expires_us))

    async def report(
        self,
        key: RunKey,
        run: str,
        revision: int,
        runs_class: str,
        needs: Sequence[str],
        record: StepRecord,
    ) -> Report:
        """Keep a step's result that a caller has computed for this run, if it is still wanted.

        Raises RunNotFound.
        """
        reply = await self._scripts.report(
            self._keys(key),
            key,
            *needs,
            run_id=run,
            revision=revision,
            runs_class=runs_class,
            step=record.name,
            value=encode_step_value(record),
        )
        if not reply:
            raise RunNotFound(key.namespace, key.key)
        accepted, letter = reply
        return Report(bool(accepted), step_state(letter) if letter else None)

    async def orphans(self, classes: Iterable[str], ttl: float, limit: int) -> Sequence[Orphan]:
        """Register for `ttl` seconds the classes that this process starts, and return orphans.

        Orphans are of pipelines that live workers offer with this process's definition. Returns at
        most `limit` of each class in each partition.
        """
        return await self._orphans.find(classes, ttl, limit)

    async def adopt(self, orphan: Orphan, plan: RunPlan) -> bool:
        """Queue an orphan by another plan of its inputs; return whether it still was one."""
        return await self._orphans.adopt(orphan, plan)

    async def list(
        self,
        namespace: str,
        statuses: Sequence[Status],
        after: RunKey | None,
        limit: int,
        *,
        quiet: bool = False,
    ) -> list[RunSummary]:
        """Return up to `limit` runs behind `after`, by partition and name; no namespace means all.

        A damaged record is left out. It is counted and logged unless `quiet`, for repeated lists.
        """
        page = await self._listing.page(namespace, statuses, after, limit, quiet=quiet)
        return list(page.runs)

    async def page(
        self,
        namespace: str,
        statuses: Sequence[Status],
        after: RunKey | None,
        limit: int,
        *,
        key_prefix: str = "",
        pipeline: str = "",
    ) -> RunsPage:
        """Return a page of the runs whose keys begin so, of one pipeline or of all.

        A `key_prefix` needs a namespace. With a `pipeline` the page may be short.
        """
        return await self._listing.page(
            namespace, statuses, after, limit, key_prefix=key_prefix, pipeline=pipeline
        )

    async def stats(self, namespace: str) -> Stats:
        """Return how much is kept and queued; no namespace means all."""
        return await self._listing.stats(namespace)

    def _keys(self, key: RunKey) -> PartitionKeys:
        return self._partitions[partition_of(key, self._rules.partitions)]

    def _snapshot(
        self,
        key: RunKey,
        reply: Reply,
        record: Mapping[bytes, bytes] | None = None,
        age: float = 0.0,
    ) -> Snapshot:
        """Return a run of a reply, or of its `record`, read `age` seconds later.

        Raises RunNotFound and RecordDamaged.
        """
        if not reply or record == {}:
            raise RunNotFound(key.namespace, key.key)
        try:
            if record is None:
                return decode_snapshot(key, reply[0], reply[1:])
            return decode_large_snapshot(key, reply, record, age)
        except (ValueError, LookupError) as error:
            self._observer.damaged()
            raise RecordDamaged(str(key)) from error
