"""The rules of a store: its limits, its partitions and its prefix."""

from __future__ import annotations

from dataclasses import dataclass

from ..domain.errors import StartupError
from .connect import Client, database_of
from .keys import DEFAULT_PREFIX, Installation, PartitionKeys

LIVE_PATIENCE = 30 * 60.0
"""Seconds that a live run is kept at least, without a worker that renews it."""
GONE_AFTER = 3600.0
"""Seconds of silence after which a worker that holds nothing is forgotten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRules:
    """The limits that a store enforces. Durations in seconds."""

    partitions: int
    max_records: int
    """Over all partitions, as every limit here; each partition holds its share."""
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
    """The prefix of the installation's keys and channels: its processes share their runs."""

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
        """Return a partition's share of this limit; all shares add up to it."""
        return limit // self.partitions + (partition < limit % self.partitions)

    def refusal(self, why: bytes, namespace: str) -> str:
        """Return why a run of this namespace cannot be started now, by start.lua's word for it."""
        match why:
            case b"queue":
                return f"the queue is full: {self.max_live} runs have not ended"
            case b"worker":
                return "no worker has come for five minutes, and runs wait for one"
            case b"namespace":
                places, whose = self.namespace_max, f" of namespace {namespace}"
            case _:
                places, whose = self.max_records, ""
        return f"all {places} places{whose} are held by runs that have not ended"

    def keys(self, client: Client) -> list[PartitionKeys]:
        """Return the keys of each partition, in the database that this client uses."""
        installation = Installation(self.prefix, database_of(client))
        return [PartitionKeys(number, installation) for number in range(self.partitions)]
