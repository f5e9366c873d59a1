"""Spell Redis keys and channels; no other module does.

Every key of a partition carries the hash tag `{P}`, so that in a cluster all of a transition's
keys are in one slot. A run's record has a TTL. The other keys of a partition live as long as
the store does; seventeen of them (`FIXED`) are passed to each script. In front of all
of them is the prefix of their installation, `headstart` unless HEADSTART_PREFIX names another:

    headstart:{P}:run:<namespace>:<key>   hash    one run's record, with a TTL
    headstart:{P}:partial:<namespace>:<key>  hash  what its steps that stream have given, with the
                                                  record's TTL
    headstart:{P}:jobs                    stream  queued runs; consumer group `workers`
    headstart:{P}:expiry                  zset    member -> when it expires, in microseconds
    headstart:{P}:unread, :read           zset    ended runs -> when they ended, or were read
                                                  again: the order in which they are evicted
    headstart:{P}:status:<status>         zset    runs of that status, in the order of their names
    headstart:{P}:waiting                 zset    pending run -> by when it is needed, microseconds
    headstart:{P}:waiting:order           zset    the same by namespace; :turns:<band> has these
                                                  namespaces, :served:<band> those served lately,
                                                  with a TTL: see `lua/_order.lua`
    headstart:{P}:pools                   set     pools, other than the default one, with runs
    headstart:{P}:pool:<pool>:pending, :in_progress
                                          zset    their runs of that status
    headstart:{P}:step_runs:pending, :in_progress
                                          zset    those of the runs of that status that are steps
                                                  of a run in another pool (`lua/_step_runs.lua`)
    headstart:{P}:unserved                hash    the classes of runs that a worker has met and does
                                                  not offer, and of those in pools
    headstart:{P}:unserved:<class>        zset    pending runs of one of them, as in `waiting`; with
                                                  a TTL, that of its last run
    headstart:{P}:offers                  hash    worker -> until when, and which pipelines it runs
    headstart:{P}:starters                hash    API process -> until when, and the classes of the
                                                  runs that it starts
    headstart:{P}:tickets                 hash    claimed entry -> score, run and member of its run
    headstart:{P}:ledger                  hash    what became of the work of all runs, in sums
    headstart:{P}:unsettled               hash    member -> its work, until its fate is known
    headstart:{P}:layout                  string  how the store is laid out: see `layout`

    headstart:{P}:memo:<namespace>:<digest>  string  a memoised step's result, with a TTL
    headstart:{P}:memos                   zset    memo -> when it was last used, in microseconds;
                                                  with a TTL, that of its last memo

    headstart:{0}:workers                 hash    worker -> until when, and its description;
                                                  with a TTL, in the first partition alone
    headstart:{0}:processes               zset    process -> until when it counts as live;
                                                  with a TTL, in the first partition alone
    headstart:{0}:provider:<name>         hash    what is known of a provider; it and the next three
                                                  with a TTL, in the first partition alone
    headstart:{0}:provider:<name>:calls   zset    a call under way -> when its lease ends
    headstart:{0}:provider:<name>:askers  zset    worker -> when it last asked for permits
    headstart:{0}:provider:<name>:turns   zset    worker -> since when it waits for concurrency
    headstart:{0}:providers               zset    provider -> when it was last asked for; with a TTL
    headstart:{0}:budget:<day>:<namespace>  string  tokens that a namespace used on that day, in UTC
                                                  and days since 1970; with a TTL
    headstart:{0}:message_batches:<digest>  hash  requests in batches -> their owners and batches;
                                                  with a TTL, in the first partition alone
    headstart:{0}:over_budget             hash    namespace -> the last day on which its budget was
                                                  used up, and the budget; with a TTL

A member of these sets is `<namespace>:<key>`. Scripts split it at its first colon, so a colon of
the namespace is written as a semicolon, which no namespace has. A prefix holds neither a colon nor
a brace.

Announcements go to sharded channels, which in a cluster are on the node of their partition. A key
is one of its database, but a channel is one of all databases; so its name holds the database's
number:

    headstart:{P}:events:<database>            all, for live pages
    headstart:{P}:events:<database>:<process>  those of runs that a process waits for or keeps
    headstart:{P}:events:<database>:unserved   runs that were left for other workers
    headstart:{P}:events:<database>:resets     the store was emptied
"""

from __future__ import annotations

import secrets
import zlib
from dataclasses import dataclass
from functools import cached_property

from ..domain import STEP_RUN, RunKey, Status

DEFAULT_PREFIX = "headstart"
GROUP = "workers"
FIXED = (
    *("jobs", "expiry", "unread", "read", *(f"status:{status}" for status in Status)),
    *("waiting", "tickets", "ledger", "unsettled", "unserved", "offers", "starters", "layout"),
)


def member(key: RunKey) -> str:
    """Return a run's name in its partition's sets and announcements."""
    return f"{encoded(key.namespace)}:{key.key}"


def encoded(namespace: str) -> str:
    """Return the namespace as names in Redis have it: without a colon."""
    return namespace.replace(":", ";")


def decoded(namespace: str) -> str:
    """Return the namespace that `encoded` wrote so."""
    return namespace.replace(";", ":")


def from_member(text: str) -> RunKey:
    """Return the run that `member` named so."""
    namespace, _, key = text.partition(":")
    return RunKey(decoded(namespace), key)


def memo_name(namespace: str, digest: str) -> str:
    """Return a memo's name in its partition."""
    return f"{encoded(namespace)}:{digest}"


def new_process() -> str:
    """Return a name for this process, under which announcements are sent to it."""
    return secrets.token_hex(4)


def memo_partition(namespace: str, digest: str, partitions: int) -> int:
    """Return the partition that keeps this memo; memos are spread without regard to runs."""
    return zlib.crc32(memo_name(namespace, digest).encode()) % partitions


def partition_of(key: RunKey, partitions: int) -> int:
    """Return the partition of this run: the CRC-32 of its member name, modulo their number.

    A step run is in the partition of its run.
    """
    return zlib.crc32(member(key).partition(STEP_RUN)[0].encode()) % partitions


@dataclass(frozen=True, slots=True)
class Installation:
    """One of the installations that share a Redis; none sees the runs of another."""

    prefix: str = DEFAULT_PREFIX
    """The prefix of all its keys and channels."""
    database: int = 0
    """The number of the database that holds its keys."""


@dataclass(frozen=True)
class PartitionKeys:
    """One partition's keys."""

    partition: int
    installation: Installation = Installation()

    @cached_property
    def _prefix(self) -> str:
        return f"{self.installation.prefix}:{{{self.partition}}}:"

    @cached_property
    def fixed(self) -> tuple[str, ...]:
        """The keys that are no records, in the order of `FIXED`."""
        return tuple(self._prefix + name for name in FIXED)

    def named(self, name: str) -> str:
        """Return the key of this name, which is one of `FIXED` or of a set beside them."""
        return self._prefix + name

    @cached_property
    def jobs(self) -> str:
        """The stream of queued runs."""
        return self.fixed[0]

    @cached_property
    def expiry(self) -> str:
        """All runs, by the time of their expiry."""
        return self.fixed[FIXED.index("expiry")]

    @cached_property
    def tickets(self) -> str:
        """The run of each claimed job."""
        return self.fixed[FIXED.index("tickets")]

    @cached_property
    def events(self) -> str:
        """The channel of all announcements."""
        return f"{self._prefix}events:{self.installation.database}"

    def events_of(self, process: str) -> str:
        """Return the channel of announcements for this process alone."""
        return f"{self.events}:{process}"

    @cached_property
    def unserved(self) -> str:
        """The channel of runs that were left for other workers."""
        return f"{self.events}:unserved"

    @cached_property
    def resets(self) -> str:
        """The channel that says that the store was emptied."""
        return f"{self.events}:resets"

    @cached_property
    def workers(self) -> str:
        """The descriptions of the workers."""
        return self._prefix + "workers"

    @cached_property
    def layout(self) -> str:
        """The layout of the store."""
        return self.fixed[FIXED.index("layout")]

    @cached_property
    def processes(self) -> str:
        """The processes that use the store."""
        return self._prefix + "processes"

    @cached_property
    def memos(self) -> str:
        """All memos, by the time of their last use."""
        return self._prefix + "memos"

    @cached_property
    def memo_prefix(self) -> str:
        """The prefix of a memo's key, before its namespace and digest."""
        return self._prefix + "memo:"

    @cached_property
    def providers(self) -> str:
        """All providers, by the time of their last use."""
        return self._prefix + "providers"

    def provider(self, name: str) -> str:
        """Return the key of what is known of a provider."""
        return f"{self._prefix}provider:{name}"

    @cached_property
    def budget_prefix(self) -> str:
        """The prefix of the keys of what namespaces used, before day and namespace."""
        return self._prefix + "budget:"

    def message_batches(self, digest: str) -> str:
        """Return the key of the requests in batches that ask the same for the same run."""
        return f"{self._prefix}message_batches:{digest}"

    @cached_property
    def over_budget(self) -> str:
        """The namespaces that have used up their budgets."""
        return self._prefix + "over_budget"

    @cached_property
    def record_prefix(self) -> str:
        """The prefix of a record's key, before its member name."""
        return self._prefix + "run:"

    def record(self, key: RunKey) -> str:
        """Return the key of one run's record."""
        return self.record_prefix + member(key)
