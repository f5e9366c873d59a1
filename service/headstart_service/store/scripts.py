"""The Lua scripts as typed Python methods. Each call is one atomic transition of one partition.

A method's signature is its script's. Its keyword arguments become parameters of the same names in
the script's function, behind `record` and `member`, which name the run of the call. So a script and
its callers cannot disagree about positions. An argument that the script does not use fails at
import.
"""

from __future__ import annotations

from ..domain import RunKey
from .batches import Reply
from .keys import PartitionKeys
from .script_loader import SOURCES, Batches, in_lua, script

__all__ = ["SOURCES", "Scripts"]


class Scripts:
    """Every script, ready to run."""

    def __init__(self, batches: Batches) -> None:
        """Run the scripts through `batches`."""
        self.batches = batches

    @script
    async def start(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *trace: str,
        run_id: str,
        pipeline: str,
        definition: str,
        digest: str,
        steps: str,
        settling: str,
        inputs: bytes,
        ttl_us: int,
        patience_us: int,
        failure_ttl_us: int,
        need_us: int,
        expected: str,
        restart: int,
        request_id: str,
        max_records: int,
        max_live: int,
        namespace_max: int,
    ) -> Reply:
        """Decide STARTED, JOINED, REUSED or REPLACED, make room, write, index and queue."""
        return in_lua()

    @script
    async def claim(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *,
        entry: str,
        worker: str,
        token: str,
        offering: str,
        process: str,
        alone: int,
        max_tries: int,
        lost: str,
        patience_us: int,
        failure_ttl_us: int,
        expected: str,
        costs: str,
        weights: str,
    ) -> Reply:
        """Take a delivered job's run, raising its attempt; or drop the job; or fail the run."""
        return in_lua()

    @script
    async def offer(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *,
        worker: str,
        offering: str,
        ttl_us: int,
    ) -> Reply:
        """Note which pipelines a worker offers; count the runs that were left for its like."""
        return in_lua()

    @script
    async def take_unserved(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *,
        worker: str,
        offering: str,
        limit: int,
        costs: str,
        weights: str,
    ) -> Reply:
        """Deliver jobs for runs that were left for workers which offer their class."""
        return in_lua()

    @script
    async def orphans(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *,
        process: str,
        classes: str,
        ttl_us: int,
        limit: int,
    ) -> Reply:
        """Note which classes of runs an API process starts; find orphans."""
        return in_lua()

    @script
    async def adopt(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *,
        run_id: str,
        definition: str,
        digest: str,
        steps: str,
        inputs: bytes,
    ) -> Reply:
        """Queue an unserved pending run by another plan of its inputs."""
        return in_lua()

    @script
    async def drop(self, keys: PartitionKeys, run: RunKey | None, *, entry: str | bytes) -> Reply:
        """Take a delivered job off the queue."""
        return in_lua()

    @script
    async def commit(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *fields: str | bytes,
        run_id: str,
        attempt: int,
        entry: str,
        ended_steps: str,
        work: str,
        degraded: str,
        end_status: str,
        error_reason: str,
        error_text: str,
        slot_us: int,
        failure_ttl_us: int,
    ) -> Reply:
        """Keep ended steps, show running ones and, with an end status, end the run. Fenced.

        Nothing of it where a caller has reported one of these steps.
        """
        return in_lua()

    @script
    async def renew(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *,
        run_id: str,
        attempt: int,
        entry: str,
        worker: str,
        patience_us: int,
    ) -> Reply:
        """Reset the job's idle time and the record's expiry. Fenced."""
        return in_lua()

    @script
    async def release(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *,
        run_id: str,
        attempt: int,
        entry: str,
    ) -> Reply:
        """Put an unfinished run back into the queue, uncounted. Fenced."""
        return in_lua()

    @script
    async def prepare(self, keys: PartitionKeys, run: RunKey | None, *, idle_ms: int) -> Reply:
        """Create the consumer group, and remove consumers that went without leaving."""
        return in_lua()

    @script
    async def deregister(self, keys: PartitionKeys, run: RunKey | None, *, worker: str) -> Reply:
        """Put a worker's jobs back into the queue and take it off the group."""
        return in_lua()

    @script
    async def cancel(
        self, keys: PartitionKeys, run: RunKey | None, *, revision: int, failure_ttl_us: int
    ) -> Reply:
        """End a live run as cancelled, if it has this revision; 0 is any."""
        return in_lua()

    @script
    async def delete(self, keys: PartitionKeys, run: RunKey | None, *, revision: int) -> Reply:
        """Delete a run with everything that is kept of it."""
        return in_lua()

    @script
    async def touch(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *,
        ttl_us: int,
        patience_us: int,
        revision: int,
    ) -> Reply:
        """Let a run live longer."""
        return in_lua()

    @script
    async def report(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *needs: str,
        run_id: str,
        revision: int,
        runs_class: str,
        step: str,
        value: bytes,
    ) -> Reply:
        """Keep a step's result that a caller has computed, if the run still wants it."""
        return in_lua()

    @script
    async def read(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *,
        awaits: int,
        required: str,
        by_need: int,
        process: str,
        large: int,
    ) -> Reply:
        """Read a run at one moment; note the read, what callers wait for, and whom to notify.

        Of a record of `large` bytes or more only its size and its line are read.
        """
        return in_lua()

    @script
    async def inspect(self, keys: PartitionKeys, run: RunKey | None, *, largest: int) -> Reply:
        """Read a run at one moment; nothing changes. At most `largest` bytes, 0 for no limit."""
        return in_lua()

    @script
    async def status(self, keys: PartitionKeys, run: RunKey | None) -> Reply:
        """Read a run without its results."""
        return in_lua()

    @script
    async def list(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *statuses: str,
        low: str | bytes,
        high: str | bytes,
        limit: int,
        most: int,
        pipeline: str,
    ) -> Reply:
        """Read one page of runs in a range of member names, of one pipeline or of all."""
        return in_lua()

    @script
    async def stats(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *,
        low: str | bytes,
        high: str | bytes,
        book: str,
    ) -> Reply:
        """Count runs by status in a range of names, and jobs; read the ledger's sums."""
        return in_lua()

    @script
    async def heartbeat(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *,
        registry: str,
        worker: str,
        about: str,
        ttl_us: int,
    ) -> Reply:
        """Register a worker's description, and remove overdue workers."""
        return in_lua()

    @script
    async def workers(
        self, keys: PartitionKeys, run: RunKey | None, *, registry: str, limit: int
    ) -> Reply:
        """Read the descriptions of workers that are not overdue."""
        return in_lua()

    @script
    async def memo_get(
        self, keys: PartitionKeys, run: RunKey | None, *, entry: str, index: str, name: str
    ) -> Reply:
        """Read a memo, and note that it was used."""
        return in_lua()

    @script
    async def memo_put(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *,
        entry: str,
        index: str,
        name: str,
        prefix: str,
        value: bytes,
        ttl_ms: int,
        limit: int,
    ) -> Reply:
        """Keep a memo, and drop those that were used longest ago if there are too many."""
        return in_lua()

    @script
    async def move_out(self, keys: PartitionKeys, run: RunKey | None) -> Reply:
        """Read all that a partition holds of a run, for a move to another."""
        return in_lua()

    @script
    async def move_in(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *fields: bytes,
        score: bytes,
        unread_since: bytes,
        read_since: bytes,
        line: bytes,
    ) -> Reply:
        """Write a run that `move_out` has read, as this partition's own."""
        return in_lua()

    @script
    async def move_off(self, keys: PartitionKeys, run: RunKey | None) -> Reply:
        """Remove a run that another partition has now."""
        return in_lua()

    @script
    async def move_sums(self, keys: PartitionKeys, run: RunKey | None) -> Reply:
        """Read the ledger of a partition that is given up."""
        return in_lua()

    @script
    async def move_sums_in(
        self, keys: PartitionKeys, run: RunKey | None, *sums: bytes, mark: str
    ) -> Reply:
        """Add sums of another partition's ledger, once for each `mark`."""
        return in_lua()

    @script
    async def move_end(
        self, keys: PartitionKeys, run: RunKey | None, *, kept: int, final: str
    ) -> Reply:
        """Leave a partition in its new layout, or give it up."""
        return in_lua()

    @script
    async def ping(self, keys: PartitionKeys, run: RunKey | None) -> Reply:
        """Check that a script which writes and needs memory is accepted."""
        return in_lua()

    @script
    async def reindex(
        self, keys: PartitionKeys, run: RunKey | None, *, index: str, cursor: str | bytes
    ) -> Reply:
        """Mend a part of the indexes beside the records."""
        return in_lua()

    @script
    async def sweep(self, keys: PartitionKeys, run: RunKey | None) -> Reply:
        """Forget expired runs; compare the indexes; add missing tickets."""
        return in_lua()
