"""The store as the API uses it: start, read, cancel, list and count runs in Redis."""

from __future__ import annotations

import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

from ..base.metric_labels import Eviction
from ..domain import (
    Cancelled,
    Lack,
    Look,
    Orphan,
    Outcome,
    Report,
    RunKey,
    RunPlan,
    RunSummary,
    Snapshot,
    Started,
    Stats,
    Status,
    StepRecord,
    StepState,
    WorkerState,
)
from ..domain.errors import (
    CapacityExhausted,
    RecordDamaged,
    RunNotFound,
    StartupError,
)
from ..domain.retry_after import Pace
from .accounting import ALL, book_from, ledger_from
from .batches import Reply, ScriptBatches
from .connect import Client, database_of
from .keys import (
    DEFAULT_PREFIX,
    Installation,
    PartitionKeys,
    from_member,
    member,
    partition_of,
)
from .large_reads import LARGE, LargeReads
from .layout import StoreLayout
from .offers import pipeline_of
from .scripts import SOURCES, Scripts
from .store_observer import StoreObserver, Unwatched
from .worker_registry import worker_from

log = logging.getLogger(__name__)

ABOUT = (
    *("status", "revision", "attempt", "tries", "run", "entry", "ttl", "created", "started"),
    *("completed", "expires", "seen", "pipeline", "definition", "digest", "steps", "made", "error"),
)
"""The fields of a record's `about`, as _lib.lua writes them."""
_STATES = {ord(state.value): state for state in StepState}
_STATUSES = {status.value: status for status in Status}
_AGAIN = 0
"""The reply of a script that had more to sweep than it may in one call."""
_SIZE = b"size"
"""The first field of read.lua's reply for a large record."""
_UNREADABLE = 0
"""The reply of peek.lua for a damaged record."""
LIVE_PATIENCE = 30 * 60.0
"""Seconds that a run which has not ended is kept at least: without a worker, renewing nothing."""
_STEP_DIGEST = 16
"""Characters of a step's digest that are kept, 96 bits: compared within one key alone, and with all
22 a record's line would need Redis's next size of allocation, 64 bytes more."""
_RUN_ID_BYTES = 9
"""Random bytes of a run's id, which takes 12 characters in its record."""
GONE_MS = 3_600_000
"""Milliseconds of silence after which a worker that holds nothing is forgotten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRules:
    """What the store enforces. Durations in seconds."""

    partitions: int
    max_records: int
    """Over all partitions, as every limit here; each holds its share of them."""
    max_live: int = 0
    """Of the records, how many may be of runs that have not ended; 0 for no other limit."""
    namespace_max: int = 0
    """Of the records, how many one namespace may have; 0 for no other limit."""
    failure_ttl: float
    max_memos: int = 0
    """How many results of memoised steps are kept; 0 for none."""
    by_need: bool = True
    """Whether runs are claimed in the order in which they are needed, not in that of starts."""
    prefix: str = DEFAULT_PREFIX
    """What the installation's keys and channels begin with: processes of one share their runs."""

    def __post_init__(self) -> None:
        limits = {
            "HEADSTART_MAX_CACHED_RESULTS": self.max_records,
            "HEADSTART_MAX_QUEUED": self.max_live or self.partitions,
            "HEADSTART_NAMESPACE_MAX_RESULTS": self.namespace_max or self.partitions,
            "HEADSTART_MAX_MEMOS": self.max_memos or self.partitions,
        }
        for name, limit in limits.items():
            if limit < self.partitions:
                raise StartupError(
                    f"{name}: {limit} cannot be shared out "
                    f"among {self.partitions} partitions (HEADSTART_PARTITIONS)"
                )

    def share(self, limit: int, partition: int) -> int:
        """A partition's part of this limit; all their shares make the whole."""
        return limit // self.partitions + (partition < limit % self.partitions)

    def keys(self, client: Client) -> list[PartitionKeys]:
        """The keys of each partition, in the database that this client uses."""
        installation = Installation(self.prefix, database_of(client))
        return [PartitionKeys(number, installation) for number in range(self.partitions)]


class RedisStore:
    """Runs in Redis. Every method raises StoreUnavailable when Redis does not answer in time.

    Those that are about one key raise RecordDamaged when its record is not as it was written; only
    a start with `restart` overwrites it. A list leaves it out.
    """

    def __init__(
        self,
        client: Client,
        rules: StoreRules,
        *,
        budget: float,
        connections: int,
        pace: Pace | None = None,
        observer: StoreObserver | None = None,
        large: Client | None = None,
    ) -> None:
        """Give up on Redis `budget` seconds after a call's turn has come.

        Records of megabytes are read on the client `large`, whose time-outs allow for them.
        A caller for whom there is no place is told to come back at the `pace` at which runs end.
        """
        self._pace = pace or Pace()
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
        self._name = secrets.token_hex(6)
        self._partitions = rules.keys(client)
        self.expected: Callable[[], str] = str
        """How long runs take, by pipeline, as start.lua takes it; who knows sets it."""

    async def aclose(self) -> None:
        """End what is under way for callers that have gone; the client is its opener's to close."""
        await self._batches.aclose()

    @property
    def unreachable(self) -> int:
        """Of how many partitions the server is known to be away, so that nothing is sent there."""
        return self._batches.unreachable

    async def ping(self) -> None:
        """Return if every partition can be read and written.

        Raises CapacityExhausted when Redis has no memory for starts; all else goes on then.
        """
        for keys in self._partitions:
            await self._scripts.ping(keys, None)

    async def prepare(self) -> None:
        """Create the consumer groups that do not exist.

        Workers do so too. But what starts workers by a group's lag must find it before them.
        """
        for keys in self._partitions:
            await self._scripts.prepare(keys, None, idle_ms=GONE_MS)

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
        """Start, join or reuse the run, which is needed so many seconds from now, or at once.

        If the start that made the run had this `request_id`, this is a repetition of it: it changes
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
            run_id=secrets.token_urlsafe(_RUN_ID_BYTES),
            pipeline=plan.pipeline,
            definition=plan.definition,
            digest=plan.digest,
            steps=_steps_text(plan),
            inputs=plan.inputs,
            ttl_us=round(ttl * 1e6),
            patience_us=round((LIVE_PATIENCE + (needed_in or 0)) * 1e6),
            failure_ttl_us=round(rules.failure_ttl * 1e6),
            need_us=-1 if needed_in is None else round(needed_in * 1e6),
            expected=self.expected(),
            restart=int(restart),
            request_id=request_id,
            max_records=rules.share(rules.max_records, keys.partition),
            max_live=rules.share(rules.max_live, keys.partition),
            namespace_max=rules.share(rules.namespace_max, keys.partition),
        )
        if reply[0] == b"full":
            if reply[3]:
                self._observer.evicted(Eviction.EXPIRED, reply[3])
            # Partitions fill and drain alike: the others have about as much before them.
            delay = self._pace.delay(int(reply[2]) * rules.partitions)
            raise CapacityExhausted(_refusal(reply[1], key, rules), delay)
        outcome, status, revision, *rest = reply
        gone, (shed, *carried) = rest[: len(Eviction)], rest[len(Eviction) :]
        if shed:
            self._observer.shed(shed)
        for kind, runs in zip(Eviction, gone, strict=True):
            if runs:
                self._observer.evicted(kind, runs)
        trace = carried[0].decode(errors="replace") if carried and carried[0] else ""
        return Started(Outcome(outcome.decode()), Status(status.decode()), int(revision), trace)

    async def read(self, key: RunKey, *, waits: bool = False) -> Snapshot:
        """The run with all its results, which counts as reading them. Raises RunNotFound.

        One that is queued goes before those for which nobody `waits`, if the caller does.
        """
        waiting = int(waits and self._rules.by_need)
        keys = self._keys(key)
        reply = await self._scripts.read(keys, key, waits=waiting, large=LARGE)
        if not reply or reply[1] != _SIZE:
            return self._snapshot(key, reply)
        began = time.monotonic()
        record = await self._large.read(keys.record(key), reply[2])
        return self._snapshot(key, reply, record, time.monotonic() - began)

    async def peek(self, key: RunKey, *, largest: int = 0) -> Look:
        """As `read`, for one who only looks on: neither it nor damage counts. Raises RunNotFound.

        With `largest` no more than so many bytes of fragments are read: the largest are left out.
        """
        reply = await self._scripts.peek(self._keys(key), key, largest=largest)
        if reply == _UNREADABLE:
            raise RecordDamaged(str(key))
        if not reply:
            raise RunNotFound(key.namespace, key.key)
        left, worker, attempt, *fields = reply
        try:
            snapshot = _parsed(key, [left, *fields])
        except (ValueError, LookupError) as error:
            raise RecordDamaged(str(key)) from error
        return Look(snapshot, attempt, worker.decode(errors="replace"))

    async def workers(self, limit: int) -> list[WorkerState]:
        """What up to `limit` workers have lately said of themselves, by name."""
        keys = self._partitions[0]
        rows = await self._scripts.crew(keys, None, roster=keys.workers, limit=limit)
        found = [state for row in rows if (state := worker_from(row)) is not None]
        return sorted(found, key=lambda state: state.name)

    async def status(self, key: RunKey) -> Snapshot:
        """The run without its results: `body` is empty. Raises RunNotFound."""
        return self._snapshot(key, await self._scripts.status(self._keys(key), key))

    async def cancel(self, key: RunKey, revision: int = 0) -> Cancelled:
        """End the run if it has not ended, and has this revision; 0 is any. Raises RunNotFound."""
        ttl_us = round(self._rules.failure_ttl * 1e6)
        keys = self._keys(key)
        reply = await self._scripts.cancel(keys, key, revision=revision, failure_ttl_us=ttl_us)
        if not reply:
            raise RunNotFound(key.namespace, key.key)
        return Cancelled(bool(reply[0]), Status(reply[1].decode()), int(reply[2]))

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
            value=record.state.value.encode() + record.fragment,
        )
        if not reply:
            raise RunNotFound(key.namespace, key.key)
        accepted, letter = reply
        return Report(bool(accepted), _STATES[letter[0]] if letter else None)

    async def orphans(self, classes: Iterable[str], ttl: float, limit: int) -> Sequence[Orphan]:
        """Show for `ttl` seconds which classes of runs this process starts, and find orphans.

        They are of pipelines which workers offer today as this process starts them. At most `limit`
        of each class in each partition.
        """
        found = []
        for keys in self._partitions:
            rows = await self._scripts.orphans(
                keys,
                None,
                process=self._name,
                classes=" ".join(classes),
                ttl_us=round(ttl * 1e6),
                limit=limit,
            )
            for name, run, pipeline, inputs in rows:
                key = from_member(name.decode(errors="replace"))
                found.append(Orphan(key, run.decode(), pipeline.decode(), inputs))
        return found

    async def adopt(self, orphan: Orphan, plan: RunPlan) -> bool:
        """Queue an orphan by another plan of its inputs; False when it is none any more."""
        adopted: int = await self._scripts.adopt(
            self._keys(orphan.key),
            orphan.key,
            run_id=orphan.run,
            definition=plan.definition,
            digest=plan.digest,
            steps=_steps_text(plan),
            inputs=plan.inputs,
        )
        return bool(adopted)

    async def list(
        self,
        namespace: str,
        statuses: Sequence[Status],
        after: RunKey | None,
        limit: int,
        *,
        quiet: bool = False,
    ) -> list[RunSummary]:
        """Up to `limit` runs behind `after`, by partition and name; no namespace means all.

        A damaged record is counted and logged, unless `quiet`, for one who lists again and again.
        """
        page: list[RunSummary] = []
        first = partition_of(after, self._rules.partitions) if after else 0
        for keys in self._partitions[first:]:
            low: str | bytes
            low, high = _range(namespace)
            # A position in front of the namespace, which its caller may have made up, would show
            # what lies between: the names of others.
            if after and keys.partition == first and _is_behind(after, namespace):
                low = f"({member(after)}"
            wanted = [status.value for status in statuses]
            while missing := limit - len(page):
                rows = await self._scripts.list(
                    keys, None, *wanted, low=low, high=high, limit=missing
                )
                if rows == _AGAIN:
                    continue
                page.extend(run for row in rows if (run := self._listed(row, quiet)))
                if len(rows) < missing:
                    break
                low = b"(" + rows[-1][0]
        return page

    async def stats(self, namespace: str) -> Stats:
        """How much is kept and queued; no namespace means all."""
        low, high = _range(namespace)
        counts = dict.fromkeys(Status, 0)
        queued = 0
        oldest = 0.0
        books = []
        unserved: Counter[str] = Counter()
        for keys in self._partitions:
            call = partial(
                self._scripts.stats, keys, None, low=low, high=high, book=namespace or ALL
            )
            while len(reply := await call()) == 1:
                # One call sweeps at most so many expired runs, and there are more.
                self._observer.evicted(Eviction.EXPIRED, reply[0])
            *numbers, expired, waits_ms, jobs, left, sums, unsettled = reply
            for name, count in zip(left[::2], left[1::2], strict=True):
                unserved[pipeline_of(name.decode(errors="replace"))] += count
            books.append(book_from(sums, None if namespace else unsettled))
            queued += jobs
            oldest = max(oldest, waits_ms / 1000)
            if expired:
                self._observer.evicted(Eviction.EXPIRED, expired)
            for name, count in zip(numbers[::2], numbers[1::2], strict=True):
                counts[Status(name.decode())] += count
        kept = {status: count for status, count in counts.items() if count}
        return Stats(kept, queued, oldest, ledger_from(books), unserved)

    def _keys(self, key: RunKey) -> PartitionKeys:
        return self._partitions[partition_of(key, self._rules.partitions)]

    def _snapshot(
        self,
        key: RunKey,
        reply: Reply,
        record: Mapping[bytes, bytes] | None = None,
        age: float = 0.0,
    ) -> Snapshot:
        """A record as read.lua and status.lua give it, or `record`, read `age` seconds later.

        Raises RunNotFound and RecordDamaged.
        """
        if not reply or record == {}:
            raise RunNotFound(key.namespace, key.key)
        try:
            return _parsed(key, reply if record is None else _whole(reply, record, age))
        except (ValueError, LookupError) as error:
            self._observer.damaged()
            raise RecordDamaged(str(key)) from error

    def _listed(self, row: Reply, quiet: bool) -> RunSummary | None:  # noqa: FBT001  # of our own
        """A run as list.lua gives it; None, and a line in the log, where its record is damaged."""
        try:
            return _summary(*row)
        except (ValueError, TypeError):
            if quiet:
                return None
            self._observer.damaged()
            log.error("left out of a list: the record of %r is damaged or gone", row[0])  # noqa: TRY400
            return None


def _steps_text(plan: RunPlan) -> str:
    return ",".join(f"{name}={digest[:_STEP_DIGEST]}" for name, digest in plan.steps.items())


def _refusal(why: bytes, key: RunKey, rules: StoreRules) -> str:
    """Why a run cannot be started now."""
    match why:
        case b"queue":
            return f"the queue is full: {rules.max_live} runs have not ended"
        case b"worker":
            return "no worker has come for five minutes, and runs wait for one"
        case b"namespace":
            places, whose = rules.namespace_max, f" of namespace {key.namespace}"
        case _:
            places, whose = rules.max_records, ""
    return f"all {places} places{whose} are held by runs that have not ended"


def _parsed(key: RunKey, reply: Reply) -> Snapshot:
    about, ended, fragments = b"", {}, []
    running: dict[str, bytes] = {}
    ahead: int | None = None
    lacks: Lack | None = None
    fields = iter(reply[1:])
    for field, value in zip(fields, fields, strict=True):
        if field[:2] == b"s:":
            state = ended[field[2:].decode()] = _STATES[value[0]]
            if state is StepState.RUNNING:
                running[field[2:].decode()] = value[1:]
            fragments.append(memoryview(value)[1:])  # joined below, and copied there alone
        elif field == b"about":
            about = value
        elif field == b"ahead":
            ahead = value
        elif field == b"lacks" and value:
            lacks = Lack(value.decode())
    told = dict(zip(ABOUT, about.decode().split(" ", len(ABOUT) - 1), strict=True))
    summary = RunSummary(
        key,
        told["pipeline"],
        int(told["revision"]),
        _STATUSES[told["status"]],
        int(told["created"]),
        int(told["started"]),
        int(told["completed"]),
        int(told["expires"]),
        told["error"],
        lacks,
    )
    names = [item.partition("=")[0] for item in told["steps"].split(",")]
    states = dict.fromkeys(names, StepState.PENDING) | ended
    return Snapshot(
        summary, told["run"], states, b"".join(fragments), reply[0] / 1e6, running, ahead
    )


def _whole(reply: Reply, record: Mapping[bytes, bytes], age: float) -> Reply:
    """The reply of read.lua with the fields of a record that was read `age` seconds later.

    Raises ValueError and LookupError for a damaged record.
    """
    left, _, _, _, before, *queued = reply
    about = record[b"about"]
    if about != before:
        queued = []  # it stood in the queue as another revision, or with another status
        left += _expires(about) - _expires(before)
    fields = chain.from_iterable(record.items())
    return [left - round(age * 1e6), *fields, *queued]


def _expires(about: bytes) -> int:
    """When a record expires by its line, in microseconds since the epoch."""
    return int(about.split(b" ", len(ABOUT) - 1)[ABOUT.index("expires")])


def _summary(
    name: bytes,
    status: bytes,
    revision: int,
    pipeline: bytes,
    created: bytes,
    started: bytes,
    completed: bytes,
    expires: bytes,
    error: bytes,
    lacks: bytes,
) -> RunSummary:
    """A run as list.lua gives it. Raises ValueError and, for a name alone, TypeError."""
    return RunSummary(
        key=from_member(name.decode()),
        pipeline=pipeline.decode(),
        revision=revision,
        status=Status(status.decode()),
        created_us=int(created),
        started_us=int(started),
        completed_us=int(completed),
        expires_us=int(expires),
        error=error.decode(),
        lacks=Lack(lacks.decode()) if lacks else None,
    )


def _is_behind(after: RunKey, namespace: str) -> bool:
    """Whether `after` is in or behind the range of the namespace: by bytes, as Redis orders."""
    return not namespace or member(after).encode() >= f"{namespace}:".encode()


def _range(namespace: str) -> tuple[str, str]:
    """The lexicographic range of a namespace's members; ';' follows ':'."""
    return (f"[{namespace}:", f"({namespace};") if namespace else ("-", "+")
